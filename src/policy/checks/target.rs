//! What a check asks. The words are the contract's short form, which `Display`
//! gives back; `config` reads it.

use core::net::IpAddr;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where to ask, and what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// A connection is accepted.
    Tcp(Place),
    /// A GET is answered with 2xx or 3xx.
    Http(HttpTarget),
    /// A connection to that stream socket is accepted.
    Unix(PathBuf),
    /// A command exits with 0. Never empty; no word holds a NUL.
    Exec(Vec<OsString>),
    /// The file exists and, with an age, was modified no longer ago than that.
    File { path: PathBuf, max_age: Option<Duration> },
    /// The child's tree listens on that TCP port, which nobody connects to.
    Listen(u16),
    /// grpc.health.v1 says SERVING of that service; empty: of the server.
    Grpc { place: Place, service: String },
    /// The child has said READY=1 on its NOTIFY_SOCKET.
    Notify,
    /// The child has written a newline to that descriptor (s6's notification-fd).
    Descriptor(i32),
    /// The child's last WATCHDOG=1 is not longer ago than that.
    Watchdog(Duration),
}

/// A host and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// To be resolved each time: letters, digits, `-`, `_` and `.`, at most 253.
    Name(String),
}

/// A GET over HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub(crate) place: Place,
    /// With the query, from the slash on; visible ASCII only.
    pub(crate) path: String,
    /// Added to the request, or in place of what it would have: valid names and
    /// values.
    pub(crate) headers: Vec<(String, String)>,
}

impl fmt::Display for Host {
    /// As in a URL: `[::1]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Target {
    /// What to call it where its name would say too little: without a query,
    /// headers or arguments, which may hold secrets.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Tcp(place) => format!("tcp://{place}"),
            Self::Http(http) => {
                let path = http.path.split('?').next().unwrap_or_default();
                format!("http://{}{path}", http.place)
            }
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Exec(words) => {
                let program = words.first().map(|word| word.to_string_lossy());
                format!("exec:{}", program.unwrap_or_default())
            }
            Self::File { path, .. } => format!("file://{}", path.display()),
            Self::Listen(port) => format!("listen:{port}"),
            Self::Grpc { place, .. } => format!("grpc://{place}"),
            Self::Notify => "notify".to_owned(),
            Self::Descriptor(number) => format!("fd:{number}"),
            Self::Watchdog(_) => "watchdog".to_owned(),
        }
    }
}
