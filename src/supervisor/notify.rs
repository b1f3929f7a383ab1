//! What the child says of itself: sd_notify and s6's notification-fd, in; what
//! castoff says to the supervisor above it, out.
//!
//! Believes whom `policy::notify` believes, and makes results of checks of what
//! it hears. A flood is taken in turns; what is refused is told once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Supervisor, main_process::MainProcess};
use crate::log::events;
use crate::policy::checks::Target;
use crate::policy::notify::{
    Forwarding, Kinship, Message, News, Notified, WatchdogSign, is_believed,
};
use crate::policy::status::PhaseName;
use crate::policy::watchdog::Watchdog;
use crate::system::notification::{self, Notification, Told};
use crate::system::notify::{Forwarder, NotifySocket, Received, TURN};
use crate::system::{Pid, subreaper, tree};

/// Where castoff listens, and whom it tells.
pub(crate) struct Notify {
    socket: Option<NotifySocket>,
    /// The child's number of s6's notification-fd, if it has one.
    descriptor: Option<RawFd>,
    /// castoff's end of it, while the child may still write.
    notification: Option<Notification>,
    notified: Notified,
    watchdog: Option<Watchdog>,
    is_watched: bool,
    outer: Option<(Forwarder, Forwarding)>,
    proc_root: PathBuf,
    was_refusal_told: bool,
    was_loss_told: bool,
}

/// What the loop hears of the child.
pub(super) enum Said {
    Datagrams,
    Descriptor(Told),
}

/// The end of a notification-fd that the child is started with.
pub(super) struct ChildsEnd {
    end: OwnedFd,
    number: RawFd,
}

impl ChildsEnd {
    pub(super) fn as_descriptor(&self) -> (BorrowedFd<'_>, RawFd) {
        (self.end.as_fd(), self.number)
    }
}

impl Notify {
    /// `outer` is the supervisor above castoff, if messages are passed on to it.
    pub(crate) fn new(
        socket: Option<NotifySocket>,
        descriptor: Option<RawFd>,
        watchdog: Option<Duration>,
        outer: Option<(Forwarder, Forwarding)>,
        proc_root: PathBuf,
    ) -> Self {
        Self {
            socket,
            descriptor,
            notification: None,
            notified: Notified::default(),
            watchdog: watchdog.map(Watchdog::new),
            is_watched: false,
            outer,
            proc_root,
            was_refusal_told: false,
            was_loss_told: false,
        }
    }

    /// Waits for the child to say something. Never ready while it cannot.
    pub(super) async fn hear(&mut self) -> Said {
        let datagrams = async {
            match &self.socket {
                Some(socket) => socket.readable().await,
                None => std::future::pending().await,
            }
        };
        let told = async {
            match &mut self.notification {
                Some(notification) => notification.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = told => Said::Descriptor(told),
            () = datagrams => Said::Datagrams,
        }
    }

    /// When the watchdog may have been missed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().and_then(Watchdog::next_deadline)
    }

    /// Makes the pipe for a child that is about to be started.
    pub(super) fn prepare(&mut self) -> io::Result<Option<ChildsEnd>> {
        self.notified = Notified::default();
        self.is_watched = false;
        let Some(number) = self.descriptor else { return Ok(None) };
        let (notification, end) = notification::pipe()?;
        self.notification = Some(notification);
        Ok(Some(ChildsEnd { end, number }))
    }

    /// The child has ended: who else has its pipe does not speak for it.
    pub(super) fn child_ended(&mut self) {
        self.notification = None;
    }

    fn receive(&self) -> Option<Received> {
        self.socket.as_ref()?.receive()
    }

    /// Whether the sender speaks for the child. `child` is not looked up: nobody
    /// else can have its pid.
    fn believes(&mut self, received: &Received, child: Option<Pid>) -> bool {
        let kinship = match child {
            Some(child) if child.as_raw() == received.pid => Kinship::Descendant,
            _ => tree::kinship(&self.proc_root, received.pid),
        };
        let is_private = kinship == Kinship::Gone && self.has_been_among_us(received.uid, child);
        let is_believed = is_believed(kinship, is_private, received.pid);
        if !is_believed && !std::mem::replace(&mut self.was_refusal_told, true) {
            events::notify_refused(received.pid, received.uid, "the sender is no descendant");
        }
        is_believed
    }

    /// Whether a sender that has gone must have been of this container, or could
    /// harm the child without a message.
    fn has_been_among_us(&self, user: u32, child: Option<Pid>) -> bool {
        // As PID 1 castoff sees a pid of no other container's processes.
        subreaper::is_pid_1()
            || self.socket.as_ref().is_some_and(NotifySocket::is_private)
                && ([0, subreaper::own_user()].contains(&user)
                    || child.and_then(|child| tree::user_of(&self.proc_root, child)) == Some(user))
    }

    fn tell_outer(&mut self, text: impl FnOnce(&mut Forwarding) -> Option<String>) {
        let Some((forwarder, forwarding)) = &mut self.outer else { return };
        let Some(text) = text(forwarding) else { return };
        if let Err(error) = forwarder.send(&text)
            && !std::mem::replace(&mut self.was_loss_told, true)
        {
            events::notify_failed(error.desc());
        }
    }
}

impl Supervisor {
    pub(super) fn take_said(&mut self, said: Said) {
        match said {
            Said::Datagrams => self.take_datagrams(),
            Said::Descriptor(Told::Ready) => self.check_told(is_descriptor, true, None),
            Said::Descriptor(Told::Closed { was_ready }) => {
                self.notify.notification = None;
                if !was_ready {
                    let reason = Some("closed without a line feed".to_owned());
                    self.check_told(is_descriptor, false, reason);
                }
            }
        }
    }

    /// Takes what has come, a turn's worth of it.
    pub(super) fn take_datagrams(&mut self) {
        for _ in 0..TURN {
            let Some(received) = self.notify.receive() else { break };
            self.take_datagram(&received);
        }
    }

    fn take_datagram(&mut self, received: &Received) {
        let child = self.child.filter(|_| self.child_is_up);
        if !self.notify.believes(received, child) {
            return;
        }
        let Some(message) = Message::parse(&received.bytes) else {
            if !std::mem::replace(&mut self.notify.was_refusal_told, true) {
                let cause = "the message is too long, or has a NUL in it";
                events::notify_refused(received.pid, received.uid, cause);
            }
            return;
        };
        if child.is_none() {
            return;
        }
        // The child stops, and castoff does not.
        let is_stopping = message.is_stopping && !self.lifecycle.is_renewing();
        let message = Message { is_stopping, ..message };
        self.notify.tell_outer(|outer| outer.said(&message));
        if let Some(news) = self.notify.notified.take(&message) {
            self.take_news(news, received.pid);
        }
        self.take_watchdog(&message);
        if let Some(asked) = message.extension {
            self.extend(asked);
        }
        if let Some(pid) = message.main_pid {
            self.take_main_pid(pid);
        }
        if message.status.is_some() {
            let status = self.notify.notified.status().map(str::to_owned);
            self.status.send_modify(|published| published.notify_status = status);
        }
    }

    fn take_news(&mut self, news: News, pid: i32) {
        let is_notify = |target: &Target| *target == Target::Notify;
        let state = match news {
            News::Ready => "ready",
            News::Reloading => "reloading",
            News::Reloaded => "reloaded",
            News::Stopping => "stopping",
        };
        events::notified(state, pid, self.notify.notified.status());
        match news {
            News::Ready => self.check_told(is_notify, true, None),
            News::Stopping => {
                let reason = Some("the child has said STOPPING=1".to_owned());
                self.check_told(is_notify, false, reason);
            }
            News::Reloading | News::Reloaded => {}
        }
    }

    fn take_watchdog(&mut self, message: &Message) {
        let now = Instant::now();
        let Some(watchdog) = &mut self.notify.watchdog else { return };
        if let Some(interval) = message.watchdog_interval {
            watchdog.set_interval(interval);
        }
        match message.watchdog {
            Some(WatchdogSign::Ping) => {
                if let Some(recovered) = watchdog.ping(now) {
                    self.check_told(is_watchdog, true, Some(recovered.to_string()));
                }
            }
            Some(WatchdogSign::Trigger) => {
                if let Some(missed) = watchdog.trigger(now) {
                    self.check_told(is_watchdog, false, Some(missed.to_string()));
                }
            }
            None => {}
        }
    }

    /// The deadline of a stop is the platform's and cannot move; that of the
    /// watchdog can.
    fn extend(&mut self, asked: Duration) {
        let now = Instant::now();
        if self.lifecycle.kill_at().is_some() {
            let left = self.lifecycle.kill_at().map(|at| at.saturating_duration_since(now));
            events::extension_capped(asked, left);
        } else if let Some(watchdog) = &mut self.notify.watchdog {
            watchdog.extend(asked, now);
        }
    }

    /// A ping is expected from the moment on at which the child has started,
    /// and no more once it is to stop.
    pub(super) fn follow_watchdog(&mut self, has_started: bool, is_checked: bool) {
        let Some(watchdog) = &mut self.notify.watchdog else { return };
        if !is_checked {
            watchdog.stop();
        } else if has_started && !std::mem::replace(&mut self.notify.is_watched, true) {
            watchdog.begin(Instant::now());
        }
    }

    pub(super) fn look_at_watchdog(&mut self) {
        // What has been sent in time is no miss, however long the loop took.
        self.take_datagrams();
        let missed =
            self.notify.watchdog.as_mut().and_then(|watchdog| watchdog.due(Instant::now()));
        if let Some(missed) = missed {
            self.check_told(is_watchdog, false, Some(missed.to_string()));
        }
    }

    /// Tells the supervisor above castoff where castoff stands.
    pub(super) fn tell_outer(&mut self) {
        if self.notify.outer.is_none() {
            return;
        }
        let (is_ready, phase) = {
            let status = self.status.borrow();
            (status.is_ready(), status.phase)
        };
        // Not by a sweep alone: the child may be started again after it.
        if self.lifecycle.stop_requested_at().is_some() || phase == PhaseName::Exited {
            self.notify.tell_outer(Forwarding::stopping);
        } else if is_ready {
            self.notify.tell_outer(Forwarding::ready);
        }
    }

    fn take_main_pid(&mut self, pid: i32) {
        let child = self.child.map(Pid::as_raw);
        if Some(pid) == child {
            self.main = None;
            return;
        }
        let named = Pid::from_raw(pid);
        // The end of a hook or a check would never be the child's.
        let is_command = self.hooks.is(named) || self.checks.is(named);
        if is_command || self.main.as_ref().is_some_and(|main| main.is(pid)) {
            return;
        }
        // First the handle, then the look: what is seen now is true of what the
        // handle stands for, or that has gone.
        let main = MainProcess::open(pid);
        if tree::is_living_descendant(&self.setting.proc_root, pid) {
            events::main_pid_changed(child, pid);
            self.main = Some(main);
        }
    }
}

fn is_descriptor(target: &Target) -> bool {
    matches!(target, Target::Descriptor(_))
}

fn is_watchdog(target: &Target) -> bool {
    matches!(target, Target::Watchdog(_))
}
