//! The clients of proxies: `X-Forwarded-For`, and `Forwarded` of RFC 7239.
//!
//! Proxies append to the header, so strangers write its beginning and a trusted proxy its end; lists are read
//! from the end. Strangers' quotes and brackets must not hide what was appended after them, so a list is
//! split at every comma, which no address contains.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The named addresses, the last one first; `None` for a name that is no address. `Forwarded` counts only
/// without `X-Forwarded-For`: a proxy that writes one has to remove the other.
pub(super) fn named(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let is_older = headers.contains_key(&X_FORWARDED_FOR);
    let name = if is_older { &X_FORWARDED_FOR } else { &header::FORWARDED };
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).map(move |element| {
        let element = std::str::from_utf8(element).ok()?;
        if is_older { address(element) } else { address(forwarded_for(element)?) }
    })
}

/// The value of `for` in an element of `Forwarded`: `for=192.0.2.60;proto=http;by=203.0.113.43`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// An address in a proxy's notation: bare, in brackets, in quotes, with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse().ok();
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    // RFC 7239 also allows an obfuscated port: `192.0.2.60:_gateway`.
    let (address, port) = text.rsplit_once(':')?;
    let is_hidden = port.len() > 1 && port.starts_with('_');
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    is_hidden.then(|| address.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn last(lines: &[(&'static str, &str)]) -> Option<String> {
        named(&headers(lines)).next()?.map(|address| address.to_string())
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (written, meant) in [
            ("192.0.2.60", "192.0.2.60"),
            (" 192.0.2.60:4711 ", "192.0.2.60"),
            ("\"192.0.2.60:4711\"", "192.0.2.60"),
            ("2001:db8::17", "2001:db8::17"),
            ("[2001:db8::17]", "2001:db8::17"),
            ("\"[2001:db8::17]\"", "2001:db8::17"),
            ("[2001:db8::17]:4711", "2001:db8::17"),
            ("\"[2001:db8::17]:4711\"", "2001:db8::17"),
            ("192.0.2.60:_gateway", "192.0.2.60"),
            ("\"[2001:db8::17]:_x\"", "2001:db8::17"),
        ] {
            assert_eq!(last(&[("x-forwarded-for", written)]).as_deref(), Some(meant), "{written}");
            assert_eq!(last(&[("forwarded", &format!("proto=https;For={written};by=_b"))]).as_deref(), Some(meant));
        }
        for wrong in ["", "unknown", "_hidden", "192.0.2", "[192.0.2.60", "1:2", ":80", "\"", "[]", "192.0.2.60:99999"]
        {
            assert_eq!(last(&[("x-forwarded-for", wrong)]), None, "{wrong}");
            assert_eq!(last(&[("forwarded", &format!("for={wrong}"))]), None, "{wrong}");
        }
        assert_eq!(last(&[("forwarded", "proto=https;by=192.0.2.1")]), None);
    }

    /// Whatever a stranger writes, what the proxy appended is found.
    #[test]
    fn nothing_before_it_hides_what_a_proxy_appended() {
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let pieces =
            ["\"", "[", "]", ",", ";", "for=", "\\", ":", "192.0.2.1", "2001:db8::1", " ", "\u{e9}", "_x", "unknown"];
        for _ in 0..20_000 {
            let strangers: String = (0..next(9)).map(|_| pieces[next(pieces.len())]).collect();
            for (name, appended) in [
                ("x-forwarded-for", "198.51.100.7"),
                ("x-forwarded-for", "198.51.100.7:443"),
                ("forwarded", "for=198.51.100.7"),
                ("forwarded", "proto=http;for=\"198.51.100.7:443\""),
            ] {
                let one_line = [(name, format!("{strangers}, {appended}"))];
                let two_lines = [(name, strangers.clone()), (name, appended.to_owned())];
                for lines in [&one_line[..], &two_lines[..]] {
                    let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    assert_eq!(last(&lines).as_deref(), Some("198.51.100.7"), "{lines:?}");
                    assert!(named(&headers(&lines)).count() < 99);
                }
            }
        }
    }
}
