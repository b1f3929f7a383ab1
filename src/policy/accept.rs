//! Accept, the header in which a client says what it would rather read.
//!
//! Owns its grammar (RFC 9110, 12.5.1), as far as two formats need it: media
//! ranges with their quality and a version. What is malformed asks for nothing.

/// One media range of the header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range<'a> {
    /// `type/subtype` in lower case, either or both of them `*`.
    pub(super) media_type: String,
    /// The parameter of that name, which the formats of metrics have.
    pub(super) version: &'a str,
    /// From 0, which refuses it, to 1.
    pub(super) quality: f32,
}

/// The ranges in their order.
pub(super) fn ranges(accept: &str) -> impl Iterator<Item = Range<'_>> {
    accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut version, mut quality) = ("", Some(1.0));
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" => version = value,
                "q" => quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)),
                _ => {}
            }
        }
        Some(Range { media_type, version, quality: quality? })
    })
}

/// Whether JSON is preferred to plain text. It must be asked for by more than
/// `*/*`, which is what everybody sends; asked for as much as text it is meant.
pub(crate) fn prefers_json(accept: &str) -> bool {
    let [json, text] = [["application/json", "application/*"], ["text/plain", "text/*"]]
        .map(|names| quality(accept, &names));
    json.is_some_and(|json| json > 0.0 && json >= text.unwrap_or_else(|| any(accept)))
}

/// The quality of the first of `names` that the header has: what is more
/// specific counts.
fn quality(accept: &str, names: &[&str]) -> Option<f32> {
    names.iter().find_map(|name| {
        let named = ranges(accept).filter(|range| range.media_type == **name);
        named.map(|range| range.quality).reduce(f32::max)
    })
}

fn any(accept: &str) -> f32 {
    quality(accept, &["*/*"]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_whoever_asks_for_it() {
        for accept in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json, text/plain, */*",
            "application/json;q=0.5, */*;q=0.1",
            "text/plain;q=0.5, application/json;q=0.8",
            "application/*",
            "text/html;q=0.9, application/json;q=0.3",
            "*/*;q=0.2, application/json;q=0.2",
            "text/plain;q=0, application/json;q=0.001",
        ] {
            assert!(prefers_json(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "application/json;q=0",
            "application/json;q=0, application/*",
            "application/json;q=0.5, text/plain",
            "application/json;q=0.5, text/*;q=0.6",
            "application/json;q=0.5, */*",
            "application/json;q=nan",
            "application/json;q=2",
            "application/jsonl",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            ",;=,q=,;q=1",
        ] {
            assert!(!prefers_json(accept), "{accept}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_answered(accept in "([a-z/*]{0,8};? ?q?=?[0-9.]{0,3},?)*|.*") {
            prefers_json(&accept);
        }
    }
}
