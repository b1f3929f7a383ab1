//! sd_notify: what a datagram says, what has been said so far, and what the
//! supervisor above castoff is told of it (systemd's `man 3 sd_notify`).
//!
//! Owns whom to believe and what is made of repeats and contradictions. It
//! receives and sends nothing: `system::notify` does. Whatever comes in is
//! hostile; what goes out of here is short and has no control characters.

mod forwarding;
mod message;

use std::time::Duration;

pub(crate) use forwarding::{Forwarding, outer_watchdog};
pub(crate) use message::{DATAGRAM_MAX, Message, WatchdogSign};

/// What a sender is to castoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// It is below castoff, alive or a zombie.
    Descendant,
    /// It is somebody else's, or castoff itself.
    Stranger,
    /// It has ended, or cannot be looked at.
    Gone,
}

/// Whether a message is taken. `pid` is the kernel's word for the sender, 0 for
/// one from a pid namespace that castoff cannot see; `is_private`: nobody
/// outside of the container can have sent it, or needs to.
///
/// A sender that has gone can be believed only by where it must have been: a
/// short-lived helper of the child's cannot be told from one of a neighbour's.
pub(crate) fn is_believed(kinship: Kinship, is_private: bool, pid: i32) -> bool {
    match kinship {
        _ if pid <= 0 => false,
        Kinship::Descendant => true,
        Kinship::Gone => is_private,
        Kinship::Stranger => false,
    }
}

/// What one child has said of itself so far. Begin with a new one for each child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notified {
    has_said_ready: bool,
    is_stopping: bool,
    is_reloading: bool,
    status: Option<String>,
}

/// What a message has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Ready,
    /// A reload has begun; the child serves meanwhile.
    Reloading,
    Reloaded,
    /// Final: it is not ready from here on, whatever it says.
    Stopping,
}

impl Notified {
    /// Takes one message; `None`: it was a repeat, or about something else.
    pub(crate) fn take(&mut self, message: &Message) -> Option<News> {
        if let Some(status) = &message.status {
            // An empty one takes back the one before.
            self.status = Some(status.clone()).filter(|status| !status.is_empty());
        }
        if self.is_stopping {
            return None;
        }
        if message.is_stopping {
            self.is_stopping = true;
            self.is_reloading = false;
            return Some(News::Stopping);
        }
        // Of both in one message the reload is over already.
        if message.is_ready {
            let was_reloading = std::mem::take(&mut self.is_reloading);
            return if !std::mem::replace(&mut self.has_said_ready, true) {
                Some(News::Ready)
            } else {
                was_reloading.then_some(News::Reloaded)
            };
        }
        let is_news = message.is_reloading && !self.is_reloading;
        self.is_reloading |= message.is_reloading;
        is_news.then_some(News::Reloading)
    }

    /// Whether it can serve, as far as it has said.
    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.has_said_ready && !self.is_stopping
    }

    #[cfg(test)]
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    #[cfg(test)]
    pub(crate) fn is_reloading(&self) -> bool {
        self.is_reloading
    }

    /// One line of at most 256 characters, never empty.
    pub(crate) fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }
}

/// What the child's environment has in place of the variables that castoff was
/// given; `None`: nothing. To be asked when the child gets a socket of castoff's
/// only. `watchdog` is castoff's own, `outer` the one that castoff has to feed.
///
/// There is no WATCHDOG_PID: the child's is not known before it runs, and
/// without one every process of its tree may ping.
pub(crate) fn child_variables(
    address: &str,
    watchdog: Option<Duration>,
    outer: Option<Duration>,
) -> [(&'static str, Option<String>); 3] {
    // Its pings are passed on, so they have to come often enough for both.
    let interval = [watchdog, outer].into_iter().flatten().min();
    [
        ("NOTIFY_SOCKET", Some(address.to_owned())),
        ("WATCHDOG_USEC", interval.map(|interval| interval.as_micros().to_string())),
        ("WATCHDOG_PID", None),
    ]
}

#[cfg(test)]
mod tests;
