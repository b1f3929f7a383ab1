//! Where a redirect leads: the `Location` of an answer, read as the hostile
//! text that it may be, against what was asked (RFC 3986, section 5).

use crate::policy::checks::{Host, Place};

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is another host's, or spoken otherwise than plain HTTP.
    Elsewhere,
    /// Ask the same host again. `host` is what the location calls it, with its
    /// port, if it does.
    Here { port: u16, path: String, host: Option<String> },
}

/// `None`: it cannot be followed. `path` is what was asked, with its query.
pub(super) fn follow(place: &Place, path: &str, location: &[u8]) -> Option<Next> {
    let location = escaped(location);
    let location = location.split('#').next().unwrap_or_default();
    let reference = match scheme(location) {
        Some((scheme, _)) if !scheme.eq_ignore_ascii_case("http") => return Some(Next::Elsewhere),
        Some((_, rest)) if !rest.starts_with("//") => return None,
        Some((_, rest)) => rest,
        None => location,
    };
    let Some(rest) = reference.strip_prefix("//") else {
        return Some(Next::Here { port: place.port, path: resolved(path, reference), host: None });
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (name, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (name, rest) = bracketed.split_once(']')?;
            let port = if rest.is_empty() { rest } else { rest.strip_prefix(':')? };
            (name, port)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = match port {
        "" => 80,
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        _ => return None,
    };
    let is_same = match &place.host {
        Host::Name(own) => own.eq_ignore_ascii_case(name),
        Host::Address(own) => name.parse() == Ok(*own),
    };
    if !is_same {
        return Some(Next::Elsewhere);
    }
    let host = Some(authority.to_owned());
    Some(Next::Here { port, path: resolved("/", rest), host })
}

/// The scheme, and what follows its colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

/// What cannot stand in a request is percent-encoded, as Go and browsers do.
fn escaped(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for byte in location {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                text.push_str(&format!("%{byte:02X}"));
            }
            byte if byte.is_ascii_graphic() => text.push(char::from(*byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A reference without scheme and host, as seen from the path `base`.
fn resolved(base: &str, reference: &str) -> String {
    let split = |text: &str| -> (String, String) {
        let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
        (path.to_owned(), query.to_owned())
    };
    let (base_path, base_query) = split(base);
    let (path, query) = split(reference);
    match path.as_str() {
        "" if query.is_empty() => base_path + &base_query,
        "" => base_path + &query,
        path if path.starts_with('/') => without_dots(path) + &query,
        path => {
            let directory = base_path.rfind('/').and_then(|at| base_path.get(..=at));
            without_dots(&format!("{}{path}", directory.unwrap_or("/"))) + &query
        }
    }
}

/// `/a/./b/../c` is `/a/c` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(host: &str) -> Place {
        let host = match host.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(host.to_owned()),
        };
        Place { host, port: 8080 }
    }

    fn here(port: u16, path: &str, host: Option<&str>) -> Option<Next> {
        Some(Next::Here { port, path: path.to_owned(), host: host.map(str::to_owned) })
    }

    #[test]
    fn a_location_without_a_host_stays_at_the_port() {
        for (location, path) in [
            ("/x", "/x"),
            ("/x?a=b#top", "/x?a=b"),
            ("c", "/a/c"),
            ("c/../d?q", "/a/d?q"),
            ("../../../d", "/d"),
            ("./", "/a/"),
            (".", "/a/"),
            ("..", "/"),
            ("?z", "/a/b?z"),
            ("#top", "/a/b?old"),
            ("/a b/\u{fc}", "/a%20b/%C3%BC"),
        ] {
            let next = follow(&place("web"), "/a/b?old", location.as_bytes());
            assert_eq!(next, here(8080, path, None), "{location}");
        }
    }

    #[test]
    fn a_location_with_the_same_host_may_have_another_port() {
        for (own, location, port, path, host) in [
            ("web", "http://web/x", 80, "/x", "web"),
            ("web", "HTTP://WEB:81", 81, "/", "WEB:81"),
            ("web", "//web:/?q=1", 80, "/?q=1", "web:"),
            ("web", "http://user:pw@web:81/", 81, "/", "web:81"),
            ("::1", "http://[::1]:81/x", 81, "/x", "[::1]:81"),
            ("127.0.0.1", "http://127.0.0.1/x", 80, "/x", "127.0.0.1"),
        ] {
            let next = follow(&place(own), "/a/b?old", location.as_bytes());
            assert_eq!(next, here(port, path, Some(host)), "{location}");
        }
    }

    #[test]
    fn another_host_or_scheme_is_elsewhere() {
        for location in
            ["http://other/", "https://web/", "//other", "mailto:web", "http://web.:80/", "http://"]
        {
            let next = follow(&place("web"), "/", location.as_bytes());
            assert_eq!(next, Some(Next::Elsewhere), "{location}");
        }
    }

    #[test]
    fn what_is_no_location_is_not_followed() {
        for location in [
            "http:x",
            "http:/x",
            "http://web:99999/",
            "http://web:x/",
            "http://[::1",
            "http://[::1]x",
        ] {
            assert_eq!(follow(&place("web"), "/", location.as_bytes()), None, "{location}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_followed_is_a_path(
            location in "(http://web|//web)?[ -~\u{e4}]{0,30}",
            bytes: Vec<u8>,
        ) {
            for location in [location.as_bytes(), &bytes] {
                if let Some(Next::Here { path, .. }) = follow(&place("web"), "/a/b?c", location) {
                    prop_assert!(path.starts_with('/'), "{}", path);
                    prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{}", path);
                    prop_assert!(!path.split('?').next().unwrap().split('/').any(|s| s == ".."));
                }
            }
        }
    }
}
