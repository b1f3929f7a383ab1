//! What the supervisor above castoff is told (systemd, podman with --sdnotify):
//! of castoff's own readiness and stop, and what the child says beside that.
//!
//! Each datagram is complete in itself. One that gets lost is not repeated.

use std::fmt::Write;
use std::time::Duration;

use super::message::{Message, WatchdogSign, number};

/// What it has been told so far.
#[derive(Clone, Debug)]
pub(crate) struct Forwarding {
    main_pid: Option<i32>,
    has_watchdog: bool,
    was_ready: bool,
    is_reloading: bool,
    is_stopping: bool,
}

impl Forwarding {
    /// `main_pid` is castoff's own, to be followed instead of the child's;
    /// `None` as PID 1, a number that means another process to whoever is
    /// outside. `has_watchdog`: somebody waits for castoff's pings.
    pub(crate) fn new(main_pid: Option<i32>, has_watchdog: bool) -> Self {
        Self { main_pid, has_watchdog, was_ready: false, is_reloading: false, is_stopping: false }
    }

    /// castoff is ready; `None`: that is no news, or a stop is under way.
    pub(crate) fn ready(&mut self) -> Option<String> {
        if self.is_stopping || std::mem::replace(&mut self.was_ready, true) {
            return None;
        }
        let main_pid = self.main_pid.map_or_else(String::new, |pid| format!("MAINPID={pid}\n"));
        Some(format!("READY=1\n{main_pid}"))
    }

    /// A stop was asked for, or the child stops by itself.
    pub(crate) fn stopping(&mut self) -> Option<String> {
        let is_news = !std::mem::replace(&mut self.is_stopping, true);
        is_news.then(|| "STOPPING=1\n".to_owned())
    }

    /// What is passed on of what the child has said. Its first READY is not,
    /// since castoff may wait for more, nor its main process.
    pub(crate) fn said(&mut self, message: &Message) -> Option<String> {
        let mut text = String::new();
        if message.is_stopping {
            text.extend(self.stopping());
        }
        if self.was_ready && !self.is_stopping {
            if message.is_ready {
                if std::mem::take(&mut self.is_reloading) {
                    text.push_str("READY=1\n");
                }
            } else if message.is_reloading {
                self.is_reloading = true;
                text.push_str("RELOADING=1\n");
                line(&mut text, "MONOTONIC_USEC", message.monotonic_usec);
            }
        }
        line(&mut text, "STATUS", message.status.as_ref());
        line(&mut text, "ERRNO", message.errno);
        line(&mut text, "BUSERROR", message.bus_error.as_ref());
        line(&mut text, "EXIT_STATUS", message.exit_status.as_ref());
        line(&mut text, "EXTEND_TIMEOUT_USEC", message.extension.map(|time| time.as_micros()));
        let sign = message.watchdog.filter(|_| self.has_watchdog).map(|sign| match sign {
            WatchdogSign::Ping => "1",
            WatchdogSign::Trigger => "trigger",
        });
        line(&mut text, "WATCHDOG", sign);
        (!text.is_empty()).then_some(text)
    }
}

fn line(text: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        // A String takes whatever it is given.
        let _ = writeln!(text, "{name}={value}");
    }
}

/// The interval at which castoff has to ping, by its own variables WATCHDOG_USEC
/// and WATCHDOG_PID; `None`: nobody waits for it (`man 3 sd_watchdog_enabled`).
pub(crate) fn outer_watchdog(
    usec: Option<&[u8]>,
    pid: Option<&[u8]>,
    own_pid: u32,
) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| number(pid) == Some(own_pid));
    let interval = usec.filter(|_| is_meant).and_then(number).filter(|usec| *usec > 0);
    interval.map(Duration::from_micros)
}
