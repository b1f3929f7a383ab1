//! /etc/hosts: an address, then its names (`man 5 hosts`).

use std::net::IpAddr;

/// The addresses of all lines that have the name, in their order.
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        let has_name = words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name));
        if has_name && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTS: &str = "\
127.0.0.1\tlocalhost
::1     localhost ip6-localhost # loopback
10.0.0.7 db DB.example.org. db2
# 10.0.0.8 db
fd00::7 db #db3
not-an-address db
10.0.0.7 db
";

    #[test]
    fn every_line_that_has_the_name_counts_once() {
        let text = |name| {
            let found = addresses(HOSTS, name);
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text("db"), "10.0.0.7 fd00::7");
        assert_eq!(text("db.EXAMPLE.org"), "10.0.0.7");
        assert_eq!(text("db2"), "10.0.0.7");
        assert_eq!(text("localhost"), "127.0.0.1 ::1");
        assert_eq!(text("db3"), "");
        assert_eq!(text("example.org"), "");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = addresses(&text, "db");
        }
    }
}
