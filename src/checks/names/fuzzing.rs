//! What the fuzz targets call of the resolver.

use domain::base::{Message, Rtype};

use super::dns::Answer;
use super::{ADDRESSES_MAX, Settings, candidates, dns, hosts};

/// The answer to a question for either family.
pub(crate) fn dns(answer: &[u8]) {
    let Ok(answer) = Message::from_octets(answer.to_vec()) else { return };
    for family in [Rtype::A, Rtype::AAAA] {
        if let Ok(Answer::Addresses(addresses)) = dns::read(&answer, family) {
            assert!((1..=ADDRESSES_MAX).contains(&addresses.len()));
        }
    }
}

/// Either file.
pub(crate) fn files(text: &[u8]) {
    let text = String::from_utf8_lossy(text).into_owned();
    hosts::addresses(&text, "app");
    let settings = Settings::new(&Ok(text), 53);
    assert!(!settings.servers.is_empty());
    candidates(&settings, "app", false);
}
