//! What has to stand before the child may say something of itself: its socket,
//! its variables, and the way to the supervisor above castoff.
//!
//! Nothing of it is made unless a setting asks for it: then the child finds the
//! variables that castoff was given.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::log::events;
use crate::policy::checks::Target;
use crate::policy::notify::{Forwarding, child_variables, outer_watchdog};
use crate::supervisor::{Environment, Notify};
use crate::system::notify::{Access, CANDIDATES, Forwarder, NotifySocket};
use crate::system::{descriptors, subreaper};

/// Opens what the settings ask for, and gives the child its variables; `user` is
/// the one that it becomes, if it does. Needs the context of a runtime.
///
/// # Errors
/// The socket cannot be opened, or the child can have no descriptor of that number.
pub(super) fn open(
    config: &Config,
    user: Option<u32>,
    environment: &mut Environment,
) -> io::Result<Notify> {
    let mut targets = config.checks.iter().map(|check| &check.target);
    let watchdog = targets.clone().find_map(|target| match target {
        Target::Watchdog(interval) => Some(*interval),
        _ => None,
    });
    let descriptor: Option<RawFd> = targets.find_map(|target| match target {
        Target::Descriptor(number) => Some(*number),
        _ => None,
    });
    if let Some(number) = descriptor
        && u64::from(number.unsigned_abs()) >= descriptors::limit()
    {
        let limit = descriptors::limit();
        let text = format!("fd:{number} needs a limit of descriptors (ulimit -n) above {limit}");
        return Err(io::Error::other(text));
    }
    let proc_root = config.proc_root.clone();
    if !config.gives_notify_socket() {
        return Ok(Notify::new(None, descriptor, None, None, proc_root));
    }
    let socket = NotifySocket::open(&CANDIDATES.map(Path::new), access(user))?;
    let outer = outer();
    let outer_interval = outer.as_ref().and_then(|(_, interval)| *interval);
    for (name, value) in child_variables(socket.address(), watchdog, outer_interval) {
        environment.replace(name, value);
    }
    let outer = outer.map(|(forwarder, interval)| {
        let main_pid = (!subreaper::is_pid_1()).then(|| std::process::id().cast_signed());
        (forwarder, Forwarding::new(main_pid, interval.is_some()))
    });
    Ok(Notify::new(Some(socket), descriptor, watchdog, outer, proc_root))
}

/// A child of root's may become another user, as those of many images do. Who is
/// believed does not depend on it.
fn access(user: Option<u32>) -> Access {
    match user {
        Some(uid) => Access::User(uid),
        None if subreaper::is_root() => Access::Everybody,
        None => Access::OwnUser,
    }
}

/// The supervisor above castoff, and how often it wants a ping.
fn outer() -> Option<(Forwarder, Option<Duration>)> {
    let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
    let forwarder = Forwarder::open(&address).inspect_err(|error| events::notify_failed(error));
    let [usec, pid] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(std::env::var_os);
    let bytes = |value: &'_ Option<OsString>| value.as_ref().map(|value| value.as_bytes().to_vec());
    let (usec, pid) = (bytes(&usec), bytes(&pid));
    let interval = outer_watchdog(usec.as_deref(), pid.as_deref(), std::process::id());
    Some((forwarder.ok()?, interval))
}
