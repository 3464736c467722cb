//! Keyset pagination: a page begins after the key of the last row seen.

/// A request for a page of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<K> {
    /// Rows after (or, backward, before) this key.
    pub from: Option<K>,
    /// Maximum number of rows.
    pub limit: i64,
    /// From the end towards the beginning: the page before `from`.
    pub backward: bool,
}

impl<K> PageRequest<K> {
    /// The first `limit` rows.
    #[must_use]
    pub fn first(limit: i64) -> Self {
        Self { from: None, limit, backward: false }
    }
}

/// A page of a list, in the order of the list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Up to `limit` rows of the request.
    pub rows: Vec<T>,
    /// Whether there are more rows in the direction of the request.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// From up to `limit + 1` rows in the direction of the request.
    #[must_use]
    pub fn from_overfull<K>(mut rows: Vec<T>, request: &PageRequest<K>) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or_default();
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        if request.backward {
            rows.reverse();
        }
        Self { rows, has_more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_before_a_key_is_in_the_order_of_the_list() {
        let request = PageRequest { from: Some(9), limit: 2, backward: true };
        let page = Page::from_overfull(vec![8, 7, 6], &request);
        assert_eq!((page.rows, page.has_more), (vec![7, 8], true));
    }
}
