//! The short form of a check's target, such as `tcp://db:5432`: read and printed.
//!
//! What is printed is read back as the same target. Which targets a setting
//! takes is not known here.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::value::{Command, Value, duration_text, number, toml_array, toml_string};
use crate::policy::checks::{Host, HttpTarget, Place, Target};

/// What an error says would have been accepted.
pub(super) const TARGET: &str = "a check such as tcp://host:80, http://host:80/path, \
     unix:///path, exec:COMMAND, file:///path?max_age=30s, listen:8080, grpc://host:80/service, \
     notify or fd:3";

/// The same, for the liveness of the child.
pub(super) const LIVE_TARGET: &str = "a check such as tcp://host:80, http://host:80/path, \
     unix:///path, exec:COMMAND, file:///path?max_age=30s, listen:8080 or grpc://host:80/service";

/// The same, for a list that is not about the child.
pub(super) const OTHERS_TARGETS: &str = "checks such as tcp://host:80, http://host:80/path, \
     unix:///path, exec:COMMAND, file:///path or grpc://host:80/service";

/// What begins a target; in a list a comma before anything else belongs to the
/// target that it stands in.
const SCHEMES: [&str; 9] =
    ["tcp://", "http://", "unix://", "exec:", "file://", "listen:", "grpc://", "notify", "fd:"];

/// The lowest descriptor that is nobody's, and the highest that every limit of
/// descriptors allows.
const DESCRIPTORS: std::ops::RangeInclusive<i32> = 3..=255;

/// DNS allows no longer name (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

/// What one setting names, if anything.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OneTarget(pub(super) Option<Target>);

/// The same, but nothing that the child says once and for all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LiveTarget(pub(super) Option<Target>);

/// What a list names: nothing that only the child can tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Targets(pub(super) Vec<Target>);

impl Value for OneTarget {
    fn parse(text: &OsStr) -> Option<Self> {
        target(text).map(|target| Self(Some(target)))
    }

    fn to_toml(&self) -> String {
        // Empty means unset.
        toml_string(&self.0.as_ref().map_or_else(String::new, target_text))
    }

    fn shown(&self) -> Option<String> {
        self.0.as_ref().map(target_shown)
    }
}

impl Value for LiveTarget {
    fn parse(text: &OsStr) -> Option<Self> {
        let target = target(text)?;
        (!is_announcement(&target)).then_some(Self(Some(target)))
    }

    fn to_toml(&self) -> String {
        OneTarget(self.0.clone()).to_toml()
    }

    fn shown(&self) -> Option<String> {
        self.0.as_ref().map(target_shown)
    }
}

/// Whether the child tells it instead of being asked.
pub(super) fn is_announcement(target: &Target) -> bool {
    matches!(target, Target::Notify | Target::Descriptor(_))
}

impl Value for Targets {
    fn parse(text: &OsStr) -> Option<Self> {
        elements(text).map(of_others).collect::<Option<_>>().map(Self)
    }

    fn culprit(text: &OsStr) -> Option<String> {
        let refused = elements(text).find(|element| of_others(element).is_none())?;
        Some(refused.to_string_lossy().into_owned())
    }

    fn to_toml(&self) -> String {
        toml_array(self.0.iter().map(target_text))
    }

    fn shown(&self) -> Option<String> {
        let labels: Vec<_> = self.0.iter().map(target_shown).collect();
        Some(format!("[{}]", labels.join(", ")))
    }
}

/// The parts of a list, without the spaces around them. An empty list has none.
fn elements(text: &OsStr) -> impl Iterator<Item = &OsStr> {
    let mut rest = Some(text.as_bytes()).filter(|bytes| !bytes.is_empty());
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let is_end =
            |at: &usize| bytes.get(*at) == Some(&b',') && begins_target(bytes.get(at + 1..));
        let end = (0..bytes.len()).find(is_end).unwrap_or(bytes.len());
        let (first, after) = bytes.split_at_checked(end)?;
        rest = after.strip_prefix(b",");
        Some(OsStr::from_bytes(first.trim_ascii()))
    })
}

/// A target that is not about the child.
fn of_others(text: &OsStr) -> Option<Target> {
    let is_of_child =
        |target: &Target| is_announcement(target) || matches!(target, Target::Listen(_));
    target(text).filter(|target| !is_of_child(target))
}

fn begins_target(text: Option<&[u8]>) -> bool {
    let text = text.unwrap_or_default().trim_ascii_start();
    SCHEMES.iter().any(|scheme| {
        text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

/// `text` without that scheme, whose letters may be of any case.
fn after<'a>(text: &'a OsStr, scheme: &str) -> Option<&'a OsStr> {
    let (head, rest) = text.as_bytes().split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme.as_bytes()).then(|| OsStr::from_bytes(rest))
}

/// Reads one target.
pub(super) fn target(text: &OsStr) -> Option<Target> {
    if text.eq_ignore_ascii_case("notify") {
        return Some(Target::Notify);
    }
    if let Some(rest) = after(text, "tcp://") {
        let (place, path) = authority(rest.to_str()?, None)?;
        return path.is_empty().then_some(Target::Tcp(place));
    }
    if let Some(rest) = after(text, "http://") {
        let (place, path) = authority(rest.to_str()?, Some(80))?;
        let path = path.split('#').next().unwrap_or_default();
        let is_visible = path.bytes().all(|byte| byte.is_ascii_graphic());
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{path}");
        return is_visible.then_some(Target::Http(HttpTarget { place, path, headers: Vec::new() }));
    }
    if let Some(rest) = after(text, "grpc://") {
        let (place, path) = authority(rest.to_str()?, None)?;
        let service = path.strip_prefix('/').unwrap_or(path).to_owned();
        let is_plain = service.bytes().all(|byte| byte.is_ascii_graphic());
        return is_plain.then_some(Target::Grpc { place, service });
    }
    if let Some(rest) = after(text, "unix://") {
        // sun_path, with its NUL (man 7 unix).
        return absolute(rest).filter(|path| path.as_os_str().len() < 108).map(Target::Unix);
    }
    if let Some(rest) = after(text, "file://") {
        let (path, age) = match rest.as_bytes().windows(9).rposition(|at| at == b"?max_age=") {
            Some(at) => {
                let (path, age) = rest.as_bytes().split_at_checked(at)?;
                (OsStr::from_bytes(path), age.get(9..))
            }
            None => (rest, None),
        };
        let max_age = match age {
            Some(age) => Some(super::value::Positive::parse(OsStr::from_bytes(age))?.0),
            None => None,
        };
        return absolute(path).map(|path| Target::File { path, max_age });
    }
    if let Some(rest) = after(text, "exec:") {
        return Command::parse(rest)?.0.map(Target::Exec);
    }
    if let Some(rest) = after(text, "listen:") {
        return number(rest.to_str()?).filter(|port| *port > 0).map(Target::Listen);
    }
    let descriptor: i32 = number(after(text, "fd:")?.to_str()?)?;
    DESCRIPTORS.contains(&descriptor).then_some(Target::Descriptor(descriptor))
}

fn absolute(path: &OsStr) -> Option<PathBuf> {
    let is_path = path.as_bytes().starts_with(b"/") && !path.as_bytes().contains(&0);
    is_path.then(|| PathBuf::from(path))
}

/// `host:port` and what follows it.
fn authority(text: &str, default_port: Option<u16>) -> Option<(Place, &str)> {
    let end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let (place, rest) = text.split_at_checked(end)?;
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (Host::Address(IpAddr::V6(address)), port.strip_prefix(':'))
        }
        None => {
            let (name, port) = match place.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (place, None),
            };
            (host(name)?, port)
        }
    };
    let port = match port {
        Some(port) => number(port).filter(|port| *port > 0)?,
        None => default_port?,
    };
    Some((Place { host, port }, rest))
}

fn host(name: &str) -> Option<Host> {
    if let Ok(address) = name.parse() {
        return Some(Host::Address(IpAddr::V4(address)));
    }
    let is_label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_letter)
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    // 1.2.3 and 300.1.1.1 are misspelt addresses, and no top-level domain is a number.
    let last = labels.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = labels.len() <= LONGEST_NAME && labels.split('.').all(is_label) && !is_number;
    is_name.then(|| Host::Name(name.to_owned()))
}

/// The short form. Headers have none.
pub(super) fn target_text(target: &Target) -> String {
    match target {
        Target::Tcp(place) => format!("tcp://{place}"),
        Target::Http(http) => format!("http://{}{}", http.place, http.path),
        Target::Unix(path) => format!("unix://{}", path.display()),
        Target::Exec(words) => format!("exec:{}", command_text(words)),
        Target::File { path, max_age: None } => format!("file://{}", path.display()),
        Target::File { path, max_age: Some(age) } => {
            format!("file://{}?max_age={}", path.display(), duration_text(*age))
        }
        Target::Listen(port) => format!("listen:{port}"),
        Target::Grpc { place, service } if service.is_empty() => format!("grpc://{place}"),
        Target::Grpc { place, service } => format!("grpc://{place}/{service}"),
        Target::Notify => "notify".to_owned(),
        Target::Descriptor(number) => format!("fd:{number}"),
        Target::Watchdog(interval) => format!("watchdog {}", duration_text(*interval)),
    }
}

fn command_text(words: &[OsString]) -> String {
    shell_words::join(words.iter().map(|word| word.to_string_lossy()))
}

/// A target as the log has it: without query, arguments and headers.
fn target_shown(target: &Target) -> String {
    toml_string(&target.label())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt as _;

    fn text_of(text: &str) -> Option<String> {
        target(OsStr::new(text)).as_ref().map(target_text)
    }

    #[test]
    fn every_short_form_is_read_and_printed() {
        for text in [
            "tcp://db:5432",
            "tcp://[::1]:80",
            "tcp://10.0.0.1:1",
            "tcp://my_db.svc.cluster.local.:65535",
            "http://web:8080/healthz?full=1",
            "http://[fe80::1]:80/",
            "unix:///run/app.sock",
            "exec:/bin/check --now 'a b'",
            "file:///tmp/alive",
            "file:///tmp/alive?max_age=30s",
            "file:///tmp/a?b?max_age=1m30s",
            "listen:8080",
            "grpc://app:50051",
            "grpc://app:50051/my.Service",
            "notify",
            "fd:3",
        ] {
            assert_eq!(text_of(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_may_be_left_out_is_added() {
        for (text, whole) in [
            ("http://web", "http://web:80/"),
            ("http://web?x", "http://web:80/?x"),
            ("http://web:81#top", "http://web:81/"),
            ("HTTP://web/x", "http://web:80/x"),
            ("grpc://app:1/", "grpc://app:1"),
            ("NOTIFY", "notify"),
        ] {
            assert_eq!(text_of(text).as_deref(), Some(whole));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            "db:5432",
            "tcp://",
            "tcp://db",
            "tcp://db:0",
            "tcp://db:65536",
            "tcp://db:+1",
            "tcp://db:1/x",
            "tcp://:80",
            "tcp://a b:1",
            "tcp://300.1.1.1:1",
            "tcp://::1:80",
            "tcp://[::1:80",
            "tcp://[db]:1",
            "tcp://a..b:1",
            "https://web/",
            "http://user@web/",
            "http://web/a b",
            "http://web/\u{e4}",
            "unix://relative",
            "unix:/x",
            "exec:",
            "exec:''",
            "exec:'a",
            "file://relative",
            "file:///x?max_age=0",
            "file:///x?max_age=",
            "listen:0",
            "listen:http",
            "grpc://app",
            "fd:2",
            "fd:256",
            "fd:",
            "notify:",
            "watchdog 5s",
        ] {
            assert_eq!(text_of(text), None, "{text:?}");
        }
        assert_eq!(text_of(&format!("unix:///{}", "x".repeat(107))), None);
        assert_eq!(text_of(&format!("tcp://{}:1", "x".repeat(64))), None);
    }

    #[test]
    fn only_a_comma_before_a_target_separates() {
        let texts = |text: &str| {
            let targets = Targets::parse(OsStr::new(text))?;
            Some(targets.0.iter().map(target_text).collect::<Vec<_>>())
        };
        assert_eq!(
            texts("tcp://a:1, exec:echo a,b ,http://c/?x=1,2,file:///x"),
            Some(vec![
                "tcp://a:1".to_owned(),
                "exec:echo a,b".to_owned(),
                "http://c:80/?x=1,2".to_owned(),
                "file:///x".to_owned(),
            ])
        );
        for text in [
            ",tcp://a:1",
            "tcp://a:1,",
            "tcp://a:1,,tcp://b:1",
            "tcp://a:1,b:1",
            ",",
            "notify",
            "listen:1",
        ] {
            assert_eq!(texts(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_read_back_as_the_same(
            text in "(tcp://|http://|grpc://|unix:///|exec:|file:///|listen:|fd:)?.{0,40}",
            more in "[a-z0-9.:/?_\\[\\]=, -]{0,40}",
        ) {
            for text in [&text, &format!("{text}{more}")] {
                if let Some(found) = target(OsStr::new(text)) {
                    let printed = target_text(&found);
                    prop_assert_eq!(target(OsStr::new(&printed)), Some(found), "{}", printed);
                }
            }
        }

        #[test]
        fn no_bytes_are_too_odd_to_be_refused(bytes: Vec<u8>) {
            let _ = target(&OsString::from_vec(bytes.clone()));
            let _ = Targets::parse(&OsString::from_vec(bytes));
        }
    }
}
