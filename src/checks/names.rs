//! From a name to its addresses, in a static binary and in an image that may
//! have nothing: /etc/hosts, then the name servers of /etc/resolv.conf.
//!
//! Both files are read each time, since whoever runs the container rewrites
//! them; they are small, local, and bounded. The C library's own resolver
//! blocks, starts threads and loads modules that may not fit.

mod dns;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod hosts;

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::base::Name;
use resolv_conf::{Config, ScopedIp};

use super::connect::by_turns;
use dns::{Answer, Failure};

/// More than any real one has; what is beyond is not read.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// How many addresses of a name are used.
const ADDRESSES_MAX: usize = 32;

/// How many names are tried for one: search domains multiply the questions.
const CANDIDATES_MAX: usize = 16;

/// The limits that the C library sets (`man 5 resolv.conf`).
const NDOTS_MAX: u32 = 15;
const TIMEOUT_SECONDS_MAX: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;
const SERVERS_MAX: usize = 3;

/// Where names are looked up.
pub(super) struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// 53, but for tests.
    port: u16,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into(), port: 53 }
    }
}

impl Resolver {
    /// The addresses of a name, never none, at most 32. A dot at its end keeps
    /// it from being searched for in the search domains.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let (name, is_absolute) = match name.strip_suffix('.') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let known = text_of(&self.hosts).map(|text| hosts::addresses(&text, name));
        let found = match known.unwrap_or_default() {
            known if !known.is_empty() => known,
            _ if is_localhost(name) => {
                vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]
            }
            _ => {
                let settings = Settings::new(&text_of(&self.resolv_conf), self.port);
                search(&settings, name, is_absolute)
                    .await
                    .map_err(|reason| format!("does not resolve: {reason}"))?
            }
        };
        let mut found = by_turns(found);
        found.truncate(ADDRESSES_MAX);
        Ok(found)
    }
}

/// RFC 6761, section 6.3: no server is asked for it.
fn is_localhost(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

/// The beginning of a file, if it is one.
fn text_of(path: &Path) -> io::Result<String> {
    /// Of every architecture but MIPS, SPARC, Alpha and PA-RISC.
    const O_NONBLOCK: i32 = 0o4000;
    // To open a FIFO would wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What resolv.conf says; lines that it does not understand are left out, as
/// the C library does.
#[derive(Debug, PartialEq)]
struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Settings {
    /// A missing file means a server on this machine.
    fn new(text: &io::Result<String>, port: u16) -> Self {
        let text = text.as_deref().unwrap_or_default();
        let (config, _) = Config::parse_with_errors(text.as_bytes());
        let mut servers: Vec<_> = config.nameservers.iter().map(|ip| server(ip, port)).collect();
        servers.truncate(SERVERS_MAX);
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, port).into());
        }
        Self {
            servers,
            search: config.get_last_search_or_domain().cloned().collect(),
            ndots: config.ndots.min(NDOTS_MAX) as usize,
            timeout: Duration::from_secs(config.timeout.clamp(1, TIMEOUT_SECONDS_MAX).into()),
            attempts: config.attempts.clamp(1, ATTEMPTS_MAX),
        }
    }
}

/// The interface of a link-local server counts when it is a number.
fn server(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V4(address) => (*address, port).into(),
        ScopedIp::V6(address, scope) => {
            let scope = scope.as_ref().and_then(|scope| scope.parse().ok()).unwrap_or_default();
            SocketAddrV6::new(*address, port, 0, scope).into()
        }
    }
}

/// The whole names to ask for, in order: with few dots the search domains come
/// first (`man 5 resolv.conf`, ndots).
fn candidates(settings: &Settings, name: &str, is_absolute: bool) -> Vec<Name<Vec<u8>>> {
    let as_it_is = name.parse().ok();
    let searched = settings.search.iter().filter(|domain| !is_absolute && *domain != ".");
    let searched = searched.filter_map(|domain| format!("{name}.{domain}").parse().ok());
    let dots = name.bytes().filter(|byte| *byte == b'.').count();
    let mut names: Vec<_> = if dots >= settings.ndots {
        as_it_is.into_iter().chain(searched.take(CANDIDATES_MAX - 1)).collect()
    } else {
        searched.take(CANDIDATES_MAX - 1).chain(as_it_is).collect()
    };
    names.dedup();
    names
}

/// Asks for one candidate after the other until one has addresses.
async fn search(settings: &Settings, name: &str, is_absolute: bool) -> Result<Vec<IpAddr>, String> {
    let mut failed = None;
    let mut has_name = false;
    for name in candidates(settings, name, is_absolute) {
        match dns::addresses(&settings.servers, settings.timeout, settings.attempts, &name).await {
            Ok(Answer::Addresses(addresses)) => return Ok(addresses),
            Ok(Answer::NoAddress) => has_name = true,
            Ok(Answer::NoName) => {}
            // A server that fails for one domain may know the next one; one
            // that does not answer at all would only be waited for again.
            Err(Failure::Answered(reason)) => failed = Some(reason),
            Err(Failure::Silent(reason)) => return Err(reason),
        }
    }
    Err(match failed {
        Some(reason) => reason,
        None if has_name => "the name has no address".to_owned(),
        None => "no such name".to_owned(),
    })
}

#[cfg(test)]
mod tests;
