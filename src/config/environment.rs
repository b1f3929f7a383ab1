//! The variables: one pass over the environment that castoff was given.
//!
//! Owns the names below CASTOFF_: settings, their `_FILE` forms, what castoff
//! exports itself, and what Kubernetes and Docker inject for a service that
//! happens to be called castoff. It never changes the environment.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::error::ConfigError;
use super::options::{SETTINGS, Setting, nearest};
use super::settings::{Given, Origin, PLATFORM_GRACE};
use crate::policy::log_style::Identity;

const PREFIX: &str = "CASTOFF_";
/// castoff exports these to its child, which may be another castoff.
const EXPORTED: [&[u8]; 3] = [b"CPUS", b"MEMORY_BYTES", b"PIDS"];
/// Bytes that a file may have which gives the value of one variable.
const LONGEST_VALUE: u64 = 64 * 1024;

/// Characters of a name in Kubernetes (RFC 1123, subdomain).
const NAME_MAX: usize = 253;

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment<'a> {
    pub(super) given: Vec<Given<'a>>,
    pub(super) in_kubernetes: bool,
    /// TERMINATION_GRACE_PERIOD_SECONDS
    pub(super) platform_grace: Option<&'a OsString>,
    pub(super) identity: Identity,
}

/// Reads every variable that concerns castoff. Empty means unset; of two
/// variables with one name the first counts, as for `getenv`.
pub(super) fn read<'a>(
    env: &'a [(OsString, OsString)],
    errors: &mut Vec<ConfigError>,
) -> Environment<'a> {
    let mut found = Environment::default();
    let mut files: Vec<(&'static Setting, &'a OsStr)> = Vec::new();
    for (name, value) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(suffix) = name.as_bytes().strip_prefix(PREFIX.as_bytes()) else {
            if name == "KUBERNETES_SERVICE_HOST" {
                found.in_kubernetes = true;
            } else if name == PLATFORM_GRACE {
                found.platform_grace.get_or_insert(value);
            } else if let Some(place) = place_of(&mut found.identity, name) {
                place.get_or_insert_with(|| {
                    value.to_string_lossy().chars().take(NAME_MAX).collect()
                });
            }
            continue;
        };
        let by_file = suffix.strip_suffix(b"_FILE").and_then(Setting::by_variable);
        if let Some(setting) = Setting::by_variable(suffix) {
            if !found.given.iter().any(|given| given.setting.key == setting.key) {
                let text = Some(Cow::Borrowed(value.as_os_str()));
                found.given.push(Given { setting, text, origin: Origin::Variable, source: None });
            }
        } else if let Some(setting) = by_file {
            if !files.iter().any(|(known, _)| known.key == setting.key) {
                files.push((setting, value));
            }
        } else if !EXPORTED.contains(&suffix) && !is_link(name, value, env) {
            errors.push(unknown(name));
        }
    }
    for (setting, path) in files {
        if found.given.iter().any(|given| given.setting.key == setting.key) {
            errors.push(ConfigError::Both(setting.variable_name()));
            continue;
        }
        match read_value(Path::new(path)) {
            Ok(value) if value.is_empty() => {}
            Ok(value) => found.given.push(Given {
                setting,
                text: Some(Cow::Owned(value)),
                origin: Origin::VariableFile(path.into()),
                source: None,
            }),
            Err(cause) => errors.push(ConfigError::Read {
                given: format!("{}_FILE={path:?}", setting.variable_name()),
                cause,
            }),
        }
    }
    found
}

/// Where a variable of the downward API goes, by the names that everybody gives
/// them (Kubernetes documentation, "Expose Pod information to containers").
fn place_of<'a>(identity: &'a mut Identity, name: &OsStr) -> Option<&'a mut Option<String>> {
    match name.to_str()? {
        "POD_NAME" => Some(&mut identity.pod),
        "POD_NAMESPACE" => Some(&mut identity.namespace),
        "NODE_NAME" => Some(&mut identity.node),
        _ => None,
    }
}

/// The file's bytes without a final newline.
fn read_value(path: &Path) -> io::Result<OsString> {
    let mut bytes = read_at_most(path, LONGEST_VALUE)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Ok(OsString::from_vec(bytes))
}

/// A whole file, unless it is longer than `limit` bytes: somebody may have
/// named a device or a log.
pub(super) fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

fn unknown(name: &OsStr) -> ConfigError {
    let name = name.to_string_lossy();
    let lower = name.strip_prefix(PREFIX).unwrap_or_default().to_ascii_lowercase();
    let (word, suffix) = match lower.strip_suffix("_file") {
        Some(word) => (word, "_FILE"),
        None => (lower.as_str(), ""),
    };
    let nearest = nearest(word, SETTINGS.iter().map(|setting| setting.word))
        .map(|word| format!("{PREFIX}{}{suffix}", word.to_ascii_uppercase()));
    ConfigError::Unknown { name: name.into_owned(), what: "setting", nearest }
}

/// Whether Kubernetes (service links) or Docker (legacy links) injected the
/// variable for a service called `castoff` or `castoff-...`.
fn is_link(name: &OsStr, value: &OsStr, env: &[(OsString, OsString)]) -> bool {
    // From the underscore of CASTOFF_ on, so that a service called just
    // castoff is not a case of its own.
    let Some(tail) = name.to_str().and_then(|name| name.get(PREFIX.len() - 1..)) else {
        return false;
    };
    let is_port = |after: &str| {
        let number = after.split('_').next().unwrap_or_default();
        number.bytes().all(|b| b.is_ascii_digit())
            && !number.is_empty()
            && number.len() < after.len()
    };
    tail.ends_with("_SERVICE_HOST")
        || tail.ends_with("_PORT")
        || tail.contains("_SERVICE_PORT_")
        || tail
            .match_indices("_PORT_")
            .any(|(at, port)| tail.get(at + port.len()..).is_some_and(is_port))
        || (tail.ends_with("_NAME") && is_docker_name(value))
        || tail.match_indices("_ENV_").any(|(at, _)| {
            // So wide a shape counts only beside the name that Docker always sets.
            let link = tail.get(..at).unwrap_or_default();
            let sibling = |name: &OsString| {
                name.to_str()
                    .and_then(|name| name.strip_prefix("CASTOFF")?.strip_prefix(link))
                    .is_some_and(|rest| rest == "_NAME")
            };
            env.iter().any(|(name, value)| sibling(name) && is_docker_name(value))
        })
}

/// `/web/castoff`: the consumer's name and the alias.
fn is_docker_name(value: &OsStr) -> bool {
    value.as_bytes().starts_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(env: &[(&str, &str)]) -> Vec<String> {
        let env: Vec<_> = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut errors = Vec::new();
        read(&env, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_service_links_inject_is_no_setting() {
        for name in [
            "CASTOFF_SERVICE_HOST",
            "CASTOFF_SERVICE_PORT",
            "CASTOFF_SERVICE_PORT_HTTP",
            "CASTOFF_PORT",
            "CASTOFF_PORT_6379_TCP",
            "CASTOFF_PORT_6379_TCP_PROTO",
            "CASTOFF_PORT_6379_UDP_ADDR",
            "CASTOFF_X_SERVICE_HOST",
            "CASTOFF_X_Y_SERVICE_PORT",
            "CASTOFF_X_SERVICE_PORT_GRPC_WEB",
            "CASTOFF_X_PORT",
            "CASTOFF_X_PORT_80_TCP_PORT",
            "CASTOFF_DRAIN_PORT",
        ] {
            assert_eq!(errors_of(&[(name, "tcp://10.0.0.11:6379")]), [""; 0], "{name}");
        }
    }

    #[test]
    fn what_docker_links_inject_is_no_setting() {
        let link = [
            ("CASTOFF_X_NAME", "/web/castoff_x"),
            ("CASTOFF_X_ENV_REDIS_VERSION", "7"),
            ("CASTOFF_X_PORT_80_TCP", "tcp://172.17.0.5:80"),
        ];
        assert_eq!(errors_of(&link), [""; 0]);
        assert_eq!(errors_of(&[("CASTOFF_NAME", "/web/castoff"), ("CASTOFF_ENV_A", "1")]), [""; 0]);
    }

    #[test]
    fn what_only_looks_like_a_link_is_unknown() {
        for name in [
            "CASTOFF_",
            "CASTOFF_PORT_X_TCP",
            "CASTOFF_PORT_80",
            "CASTOFF_X_PORT_",
            "CASTOFF_X_PORTS",
            "CASTOFF_SERVICE_PORTS",
            "CASTOFF_ENV_PATH",
            "CASTOFF_X_NAME",
            "CASTOFF_EXPORT",
            "CASTOFF_CPUS_FILE",
        ] {
            assert_eq!(errors_of(&[(name, "v")]).len(), 1, "{name}");
        }
    }

    #[test]
    fn the_ports_of_the_drain_are_a_setting_and_no_link() {
        let env = [("CASTOFF_DRAIN_PORTS".into(), "80".into())];
        let found = read(&env, &mut Vec::new());
        let words: Vec<_> = found.given.iter().map(|given| given.setting.word).collect();
        assert_eq!(words, ["drain_ports"]);
    }

    #[test]
    fn what_castoff_exports_and_what_is_empty_is_no_error() {
        let own = [("CASTOFF_CPUS", "1.5"), ("CASTOFF_MEMORY_BYTES", "1"), ("CASTOFF_PIDS", "9")];
        assert_eq!(errors_of(&own), [""; 0]);
        assert_eq!(errors_of(&[("CASTOFF_DRIAN_DELAY", ""), ("castoff_x", "1")]), [""; 0]);
    }

    #[test]
    fn the_first_of_two_equal_names_counts() {
        let env =
            [("CASTOFF_LOG_LEVEL".into(), "warn".into()), ("CASTOFF_LOG_LEVEL".into(), "x".into())];
        let found = read(&env, &mut Vec::new());
        let texts: Vec<_> = found.given.iter().map(|given| given.text.as_deref()).collect();
        assert_eq!(texts, [Some(OsStr::new("warn"))]);
    }
}
