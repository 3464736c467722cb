//! Positions of the leaves of a piece of a tree: the first position, and the distance of each from the one
//! before, in LEB128. One or two bytes per leaf, and no search in either direction between a leaf's number
//! and its event.

/// Encodes positions: 0 for the first one, then the distances. Positions are increasing.
#[must_use]
pub fn encode(positions: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(positions.len() * 2);
    let mut before = positions.first().copied().unwrap_or_default();
    for position in positions {
        let mut rest = position.abs_diff(before);
        before = *position;
        while rest >= 0x80 {
            bytes.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        bytes.push(rest.to_le_bytes()[0]);
    }
    bytes
}

/// The positions; `None` if the bytes are invalid.
#[must_use]
pub fn decode(first: i64, bytes: &[u8]) -> Option<Vec<i64>> {
    let (mut positions, mut at) = (Vec::with_capacity(bytes.len()), first);
    let (mut number, mut shift) = (0_u64, 0_u32);
    for byte in bytes {
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        shift += 7;
        if byte & 0x80 == 0 {
            at = at.checked_add_unsigned(number)?;
            positions.push(at);
            (number, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_were_written() {
        for positions in [vec![], vec![1], vec![1, 2, 3], vec![5, 132, 133, 16_600, i64::MAX], vec![i64::MIN, 0]] {
            let first = positions.first().copied().unwrap_or_default();
            assert_eq!(decode(first, &encode(&positions)), Some(positions));
        }
        assert_eq!(encode(&[300, 301, 500]), [0, 1, 0xc7, 1]);
    }

    #[test]
    fn bytes_that_are_no_positions_are_told() {
        assert_eq!(decode(0, &[0x80]), None);
        assert_eq!(decode(0, &[0xff; 11]), None);
        assert_eq!(decode(i64::MAX, &[1]), None);
    }
}
