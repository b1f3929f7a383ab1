//! What stands before the child is started: the address of the endpoints, the
//! limits, the loop and the signals.
//!
//! All of it that may fail, fails here.

use std::net::{SocketAddr, TcpListener};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::Failure;
use super::parts::roots;
use crate::config::{Config, DEFAULT_PORT, Listen};
use crate::http;
use crate::log::events;
use crate::system::cgroup::{self, Detected};
use crate::system::signals::Signals;
use crate::system::{subreaper, tree};

/// What stands before the child is started.
pub(super) struct Ready {
    pub(super) is_subreaper: bool,
    pub(super) detected: Detected,
    pub(super) listener: Option<TcpListener>,
    pub(super) address: Option<SocketAddr>,
    /// Of its own thread only, so that the endpoints need no locks.
    pub(super) runtime: LocalRuntime,
    pub(super) signals: Signals,
}

/// Everything that can fail.
pub(super) fn prepare(config: &Config) -> Result<Ready, Failure> {
    let is_subreaper = adopt(config);
    let detected = cgroup::detect(&roots(config));
    let listener = listen(config)?;
    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Failure::Loop)?;
    let signals = {
        let _context = runtime.enter();
        Signals::open(&config.stop_on).map_err(Failure::Signals)?
    };
    Ok(Ready { is_subreaper, detected, listener, address, runtime, signals })
}

/// Makes the orphans of the child's tree castoff's own; returns whether as a
/// subreaper.
fn adopt(config: &Config) -> bool {
    if let Some(signal) = config.parent_death_signal
        && let Err(error) = subreaper::set_parent_death_signal(signal)
    {
        events::parent_death_signal_failed(signal, error);
    }
    if !tree::can_be_walked(&config.proc_root) {
        events::proc_unusable(config.proc_root.display());
    }
    if subreaper::is_pid_1() {
        return false;
    }
    let adopted = subreaper::become_subreaper();
    if let Err(error) = &adopted {
        events::subreaper_failed(error);
    }
    adopted.is_ok()
}

fn listen(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let bound = match config.listen {
        Listen::Off => return Ok(None),
        Listen::Default => {
            let bound = http::bind_any(DEFAULT_PORT);
            let address = format_args!("[::]:{DEFAULT_PORT}");
            return Ok(bound.map_err(|error| events::listen_failed(address, error)).ok());
        }
        Listen::Port(port) => http::bind_any(port),
        Listen::Address(address) => http::bind(address),
    };
    bound.map(Some).map_err(|error| Failure::Listen(config.listen_name.clone(), error))
}

/// Where the endpoints are, for the log.
pub(super) fn address_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}
