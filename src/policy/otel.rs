//! What OpenTelemetry's SDKs are told of the Pod: `Identity` and what is set
//! already in, variables to add out.
//!
//! Owns the names of the attributes and how the name of a service is found in that
//! of a Pod. It asks nobody: what is not in the identity, such as labels, owners
//! and the container's name, is not made up. A variable that is set, even to
//! nothing, is never touched.

use super::log_style::Identity;
use super::runtime_env::{Change, Export, Exports, Surroundings, Withheld};

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Why nothing is added, where that is so.
pub(crate) const NO_IDENTITY: &str = "POD_NAME, POD_NAMESPACE and NODE_NAME are not set";

/// What Kubernetes makes random suffixes of (apimachinery, `util/rand`).
const RANDOM: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What is left of it in the hash of a ReplicaSet, which encodes the digits of a
/// number (`SafeEncodeString`).
const HASHED: &[u8] = b"bcdf456789";

/// From where on a number is a time in minutes rather than a date: a CronJob
/// names its Jobs by these (2020-01-01; as a date it is of the year 2629).
const FIRST_MINUTE: u64 = 26_297_280;

/// The variables to add. Without any identity there is nothing to tell.
///
/// `service.instance.id` is left to the SDK: the conventions make it of the names
/// of namespace, Pod and container, and without the last of these two containers
/// of a Pod would share what has to be unique (semantic conventions, resource
/// attributes in Kubernetes).
pub(crate) fn exports(identity: &Identity, surroundings: &Surroundings<'_>) -> Exports {
    let mut found = Exports::default();
    if is_unknown(identity) {
        return found;
    }
    let mut add = |name, wanted: Result<(String, String), &str>| {
        let wanted = match surroundings.value_of(name) {
            Some(_) => Err("is set already"),
            None => wanted,
        };
        match wanted {
            Ok((value, why)) => {
                found.exports.push(Export { name, value, change: Change::Added, why });
            }
            Err(why) => found.withheld.push(Withheld { name, why: why.to_owned() }),
        }
    };
    add(ATTRIBUTES, Ok(attributes(identity)));
    let given = surroundings.value_of(ATTRIBUTES).unwrap_or_default();
    add(
        SERVICE_NAME,
        match &identity.pod {
            _ if has_service_name(given.as_encoded_bytes()) => {
                Err("service.name is in OTEL_RESOURCE_ATTRIBUTES")
            }
            Some(pod) => {
                let (name, rule) = service_name(pod);
                Ok((name.to_owned(), format!("POD_NAME {rule}")))
            }
            None => Err("POD_NAME is not set"),
        },
    );
    found
}

/// Whether there is nothing to tell.
pub(crate) fn is_unknown(identity: &Identity) -> bool {
    *identity == Identity::default()
}

/// The attributes, and what they are from. That of the namespace is for the
/// service as well, lest those of one name in two namespaces are taken for one.
fn attributes(Identity { pod, namespace, node }: &Identity) -> (String, String) {
    let places = [
        ("POD_NAME", pod, &["k8s.pod.name"][..]),
        ("POD_NAMESPACE", namespace, &["k8s.namespace.name", "service.namespace"]),
        ("NODE_NAME", node, &["k8s.node.name"]),
    ];
    let (mut pairs, mut sources) = (Vec::new(), Vec::new());
    for (source, value, keys) in places {
        let Some(value) = value else { continue };
        sources.push(source);
        pairs.extend(keys.iter().map(|key| format!("{key}={}", encoded(value))));
    }
    (pairs.join(","), format!("from {}", sources.join(", ")))
}

/// As the SDKs decode it (OpenTelemetry, Resource SDK; W3C Baggage): `%` and two
/// digits for each byte that is not unreserved in RFC 3986. That is more than has
/// to be encoded, since some take `+` for a space, or end a value at `=`.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Whether these attributes name the service.
fn has_service_name(attributes: &[u8]) -> bool {
    attributes.split(|byte| *byte == b',').any(|pair| {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        key.trim_ascii() == b"service.name"
    })
}

/// The name of what has made the Pod, and how it was found: the order of the
/// conventions, from Deployment to Pod, as far as a name tells. What cannot be
/// told apart stays whole.
fn service_name(pod: &str) -> (&str, &'static str) {
    let Some((owner, suffix)) = split(pod) else { return (pod, "as it is") };
    if is_made_of(suffix, RANDOM, 5, 5) {
        return match split(owner) {
            Some((name, hash)) if is_made_of(hash, HASHED, 7, 10) => {
                (name, "without the suffixes of a Deployment's Pods")
            }
            Some((name, minutes)) if is_time(minutes) => {
                (name, "without the suffixes of a CronJob's Pods")
            }
            _ => (owner, "without its random suffix"),
        };
    }
    let is_ordinal = suffix.bytes().all(|byte| byte.is_ascii_digit())
        && suffix.len() <= 5
        && (suffix == "0" || !suffix.starts_with('0'));
    if is_ordinal {
        (owner, "without the ordinal of a StatefulSet's Pod")
    } else {
        (pod, "as it is")
    }
}

/// At the last hyphen; neither part is empty.
fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-').filter(|(owner, suffix)| !owner.is_empty() && !suffix.is_empty())
}

fn is_made_of(text: &str, alphabet: &[u8], shortest: usize, longest: usize) -> bool {
    (shortest..=longest).contains(&text.len()) && text.bytes().all(|byte| alphabet.contains(&byte))
}

/// Whether it is the time in a CronJob's Job: minutes since the epoch, of which
/// there are 8 digits until 2160.
fn is_time(text: &str) -> bool {
    let is_number = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number && text.parse::<u64>().is_ok_and(|minutes| minutes >= FIRST_MINUTE)
}

#[cfg(test)]
mod tests;
