//! `castoff probe`: what is asked, where, and how long an answer may take.
//!
//! Owns the arguments of the sub-command, and which address they mean beside
//! the settings of the castoff that is asked. Of these it looks at the address
//! alone: whatever else is wrong is not the probe's to say.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::error::ConfigError;
use super::options::Key;
use super::settings::Given;
use super::value::{DEFAULT_PORT, Listen, POSITIVE, Positive, Value, number};
use super::{environment, file, help, is_empty};

/// The only variables that are read.
const VARIABLES: [&str; 4] = [
    "CASTOFF_HEALTH_LISTEN",
    "CASTOFF_HEALTH_LISTEN_FILE",
    "CASTOFF_CONFIG",
    "CASTOFF_CONFIG_FILE",
];

const ADDRESS: &str =
    "an IP address and a port such as 127.0.0.1:9911, [::1]:9911, :9911 or 9911, but no name";

/// How long an answer may take unless it is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the sub-command is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeInvocation {
    Ask(Question),
    /// Write this to stdout.
    Print(&'static str),
}

/// A question to a castoff that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) asked: Asked,
    /// The next one is for when the one before cannot be connected to; never
    /// none.
    pub(crate) addresses: Vec<SocketAddr>,
    /// For everything together; not 0.
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Live,
    Ready,
    Started,
}

impl Asked {
    const ALL: [Self; 3] = [Self::Live, Self::Ready, Self::Started];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Started => "started",
        }
    }
}

/// Why nothing is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("cannot ask whether it is {0:?}: expected live, ready or started")]
    Word(OsString),
    #[error("cannot ask two things at once: {0:?} is one too many")]
    SecondWord(OsString),
    #[error("cannot use {0}: no such flag, see castoff probe --help")]
    Flag(String),
    #[error("cannot use {flag}={value:?}: {flag} takes no value")]
    UnexpectedValue { flag: String, value: OsString },
    #[error("cannot use {flag}: a value is missing, expected {expected}")]
    MissingValue { flag: &'static str, expected: &'static str },
    #[error("cannot use {flag}={value:?}: expected {expected}")]
    Value { flag: &'static str, value: OsString, expected: &'static str },
    #[error("cannot ask: with {0} there are no endpoints")]
    Off(String),
    #[error("cannot ask: {0} leaves the port to the kernel, give it as --addr")]
    AnyPort(String),
    #[error("{0}")]
    Setting(String),
}

impl From<ConfigError> for ProbeError {
    fn from(error: ConfigError) -> Self {
        Self::Setting(error.to_string())
    }
}

/// Reads the arguments behind `probe`, and the settings unless they say where.
pub(crate) fn load(
    args: &[OsString],
    env: &[(OsString, OsString)],
) -> Result<ProbeInvocation, ProbeError> {
    const ADDR: &str = "--addr";
    const TIMEOUT: &str = "--timeout";
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(ProbeInvocation::Print(help::PROBE));
    }
    let (mut asked, mut address, mut timeout) = (None, None, DEFAULT_TIMEOUT);
    let mut parser = Parser::from_args(args.iter().cloned());
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(Arg::Value(word))) if asked.is_some() => {
                return Err(ProbeError::SecondWord(word));
            }
            Ok(Some(Arg::Value(word))) => {
                let found = Asked::ALL.into_iter().find(|asked| word == asked.as_str());
                asked = Some(found.ok_or(ProbeError::Word(word))?);
            }
            Ok(Some(Arg::Long("addr"))) => {
                address = Some(value(&mut parser, ADDR, ADDRESS, self::address)?);
            }
            Ok(Some(Arg::Long("timeout"))) => {
                timeout = value(&mut parser, TIMEOUT, POSITIVE, Positive::parse)?.0;
            }
            Ok(Some(Arg::Long(name))) => return Err(ProbeError::Flag(format!("--{name}"))),
            Ok(Some(Arg::Short(letter))) => return Err(ProbeError::Flag(format!("-{letter}"))),
            Err(lexopt::Error::UnexpectedValue { option, value }) => {
                return Err(ProbeError::UnexpectedValue { flag: option, value });
            }
            // The parser's other errors come from methods that are not called here.
            Err(_) => break,
        }
    }
    let addresses = match address {
        Some(listen) => addresses(listen, || ADDR.to_owned())?,
        None => of_settings(env)?,
    };
    let asked = asked.unwrap_or(Asked::Ready);
    Ok(ProbeInvocation::Ask(Question { asked, addresses, timeout }))
}

fn value<T>(
    parser: &mut Parser,
    flag: &'static str,
    expected: &'static str,
    parse: impl Fn(&OsStr) -> Option<T>,
) -> Result<T, ProbeError> {
    let missing = |_| ProbeError::MissingValue { flag, expected };
    let value = parser.value().map_err(missing)?;
    parse(&value).ok_or(ProbeError::Value { flag, value, expected })
}

/// What CASTOFF_HEALTH_LISTEN may be, but not off, or a port alone.
fn address(text: &OsStr) -> Option<Listen> {
    if let Some(port) = text.to_str().and_then(number) {
        return Some(Listen::Port(port)).filter(|_| port > 0);
    }
    Listen::parse(text).filter(|listen| match listen {
        Listen::Off => false,
        Listen::Port(port) => *port > 0,
        Listen::Address(address) => address.port() > 0,
        Listen::Default => true,
    })
}

/// Where the endpoints are of a castoff with these variables.
fn of_settings(env: &[(OsString, OsString)]) -> Result<Vec<SocketAddr>, ProbeError> {
    let is_read = |name: &OsStr| VARIABLES.iter().any(|variable| name == *variable);
    let env: Vec<_> = env.iter().filter(|(name, _)| is_read(name)).cloned().collect();
    let mut errors = Vec::new();
    let environment = environment::read(&env, &mut errors);
    if let Some(error) = errors.pop() {
        return Err(error.into());
    }
    let find = |key: Key| environment.given.iter().find(|given| given.setting.key == key);
    if let Some(given) = find(Key::HealthListen) {
        return of_setting(given);
    }
    let Some(named) = find(Key::Config) else {
        return addresses(Listen::Default, String::new);
    };
    let path = Path::new(named.text.as_deref().unwrap_or_default());
    let name = named.origin.given(named.setting, &format!("{path:?}"));
    let text = file::read(path, name, &mut errors).unwrap_or_default();
    let contents = file::parse(path, &text, &mut errors);
    let is_of_whole = |error: &ConfigError| {
        matches!(error, ConfigError::Read { .. } | ConfigError::Syntax { .. })
    };
    if let Some(error) = errors.into_iter().find(is_of_whole) {
        return Err(error.into());
    }
    let is_address =
        |given: &&Given<'_>| given.setting.key == Key::HealthListen && !is_empty(given);
    match contents.given.iter().find(is_address) {
        Some(given) => of_setting(given),
        None => addresses(Listen::Default, String::new),
    }
}

fn of_setting(given: &Given<'_>) -> Result<Vec<SocketAddr>, ProbeError> {
    let listen =
        given.text.as_deref().and_then(Listen::parse).ok_or_else(|| given.refused(None))?;
    let name = || given.origin.given(given.setting, &listen.to_toml());
    addresses(listen, name)
}

/// The addresses of loopback for every address, else that address. `name` is
/// the setting with its value.
fn addresses(listen: Listen, name: impl Fn() -> String) -> Result<Vec<SocketAddr>, ProbeError> {
    const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let both = |port| BOTH.map(|ip| SocketAddr::new(ip, port)).to_vec();
    let addresses = match listen {
        Listen::Off => return Err(ProbeError::Off(name())),
        Listen::Default => both(DEFAULT_PORT),
        Listen::Port(port) => both(port),
        Listen::Address(address) => match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())]
            }
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => both(address.port()),
            _ => vec![address],
        },
    };
    if addresses.iter().any(|address| address.port() == 0) {
        return Err(ProbeError::AnyPort(name()));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_from(args: &[&str], env: &[(&str, &str)]) -> Result<ProbeInvocation, String> {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        load(&args, &env).map_err(|error| error.to_string())
    }

    fn asked(args: &[&str], env: &[(&str, &str)]) -> (Asked, String, Duration) {
        match load_from(args, env) {
            Ok(ProbeInvocation::Ask(Question { asked, addresses, timeout })) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                (asked, addresses.join(" "), timeout)
            }
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn the_default_is_readiness_on_loopback_within_a_second() {
        let both = "127.0.0.1:9911 [::1]:9911".to_owned();
        assert_eq!(asked(&[], &[]), (Asked::Ready, both, Duration::from_secs(1)));
    }

    #[test]
    fn each_word_asks_one_endpoint() {
        for (word, level) in
            [("live", Asked::Live), ("ready", Asked::Ready), ("started", Asked::Started)]
        {
            assert_eq!(asked(&[word], &[]).0, level);
            assert_eq!(asked(&["--timeout=5", word, "--addr", ":1"], &[]).0, level);
        }
    }

    #[test]
    fn the_address_is_the_one_that_castoff_was_given() {
        for (listen, expected) in [
            (":8080", "127.0.0.1:8080 [::1]:8080"),
            ("[::]:8080", "127.0.0.1:8080 [::1]:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("10.0.0.7:8080", "10.0.0.7:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("", "127.0.0.1:9911 [::1]:9911"),
        ] {
            assert_eq!(asked(&[], &[("CASTOFF_HEALTH_LISTEN", listen)]).1, expected, "{listen}");
            if !listen.is_empty() {
                assert_eq!(asked(&["--addr", listen], &[]).1, expected, "{listen}");
            }
        }
        assert_eq!(asked(&["--addr=8080"], &[]).1, "127.0.0.1:8080 [::1]:8080");
    }

    #[test]
    fn other_settings_are_not_looked_at() {
        let env = [
            ("CASTOFF_DRIAN_DELAY", "soon"),
            ("CASTOFF_LOG_LEVEL_FILE", "/nonexistent"),
            ("CASTOFF_GRACE_PERIOD", "never"),
            ("CASTOFF_HEALTH_LISTEN", ":1"),
        ];
        assert_eq!(asked(&[], &env).1, "127.0.0.1:1 [::1]:1");
        let env = [("CASTOFF_HEALTH_LISTEN", "nonsense"), ("CASTOFF_CONFIG", "/nonexistent")];
        assert_eq!(asked(&["--addr=:1"], &env).1, "127.0.0.1:1 [::1]:1");
    }

    #[test]
    fn what_is_wrong_is_one_error() {
        let expected_address = "expected an IP address and a port such as 127.0.0.1:9911, \
                                [::1]:9911, :9911 or 9911, but no name";
        let expected_time = "expected a duration above 0 such as 5s, 500ms or 1m30s, at most 720h";
        for (args, error) in [
            (
                &["alive"][..],
                "cannot ask whether it is \"alive\": expected live, ready or started".to_owned(),
            ),
            (
                &["live", "ready"],
                "cannot ask two things at once: \"ready\" is one too many".to_owned(),
            ),
            (&["--port=1"], "cannot use --port: no such flag, see castoff probe --help".to_owned()),
            (&["-v"], "cannot use -v: no such flag, see castoff probe --help".to_owned()),
            (
                &["--addr", "localhost:1"],
                format!("cannot use --addr=\"localhost:1\": {expected_address}"),
            ),
            (&["--addr=off"], format!("cannot use --addr=\"off\": {expected_address}")),
            (&["--addr=:0"], format!("cannot use --addr=\":0\": {expected_address}")),
            (&["--addr="], format!("cannot use --addr=\"\": {expected_address}")),
            (&["--addr"], format!("cannot use --addr: a value is missing, {expected_address}")),
            (&["--timeout=0"], format!("cannot use --timeout=\"0\": {expected_time}")),
            (&["--timeout=soon"], format!("cannot use --timeout=\"soon\": {expected_time}")),
        ] {
            assert_eq!(load_from(args, &[]), Err(error), "{args:?}");
        }
        for (listen, error) in [
            ("off", "cannot ask: with CASTOFF_HEALTH_LISTEN=\"off\" there are no endpoints"),
            (
                "[::]:0",
                "cannot ask: CASTOFF_HEALTH_LISTEN=\"[::]:0\" leaves the port to the kernel, \
                 give it as --addr",
            ),
            (
                "localhost:1",
                "cannot use CASTOFF_HEALTH_LISTEN=\"localhost:1\": expected off or an IP address \
                 and a port such as [::]:9911, 127.0.0.1:9911 or :9911",
            ),
        ] {
            let env = [("CASTOFF_HEALTH_LISTEN", listen)];
            assert_eq!(load_from(&[], &env), Err(error.to_owned()), "{listen}");
        }
    }

    #[test]
    fn help_counts_before_anything_that_is_wrong() {
        for args in [&["--help"][..], &["-h"], &["alive", "--help"]] {
            assert_eq!(load_from(args, &[]), Ok(ProbeInvocation::Print(help::PROBE)));
        }
    }
}
