//! Signals in and on: what castoff receives, and what the child gets of it.
//!
//! A signal of CASTOFF_STOP_ON becomes an event, any other goes to the child at
//! once. What the child gets when it is to stop is decided in `policy`.

use super::Supervisor;
use crate::log::events;
use crate::policy::death;
use crate::policy::lifecycle::Event;
use crate::policy::signal::Signal;
use crate::system::signals::{Received, Sender};
use crate::system::{Errno, Pid, kill, tree};

/// How many signals are kept for a child that was not started yet. Standard
/// signals are kept once each, as the kernel would.
const EARLY_MAX: usize = 256;

impl Supervisor {
    pub(super) fn take_batch(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        // Facts outrank requests, whatever the order in which the kernel tells
        // them: a stop request must not meet a child that is taken for running
        // although it stands still, or has ended by itself.
        if batch.iter().any(|received| received.signal == Signal::CHLD) {
            self.reap();
        }
        for received in batch.drain(..) {
            if !received.is_about_a_child() {
                self.on_signal(&received);
            }
        }
        self.batch = batch;
    }

    fn on_signal(&mut self, received: &Received) {
        let signal = received.signal;
        if self.setting.stop_on.contains(&signal) {
            self.status.send_modify(|status| status.signals_received.add(signal));
            let sender = self.sender_of(received, true);
            events::signal_received(signal, &sender);
            self.witness.stop_requested(signal, sender);
            self.on(Event::StopRequested(signal));
            return;
        }
        // The signal first, then the word about it.
        let forwarded = self.forward(received);
        self.status.send_modify(|status| status.signals_received.add(signal));
        // Looking a process up takes five system calls.
        let sender = self.sender_of(received, events::has_signal_received());
        events::signal_received(signal, &sender);
        if let Some((signal, result)) = forwarded {
            self.note_forwarded(signal, Some(sender), result);
        }
    }

    /// Passes a signal on, as what CASTOFF_REWRITE makes of it.
    pub(super) fn forward(&mut self, received: &Received) -> Option<(Signal, Result<i32, Errno>)> {
        let Some(child) = self.child.filter(|_| self.child_is_up) else {
            self.keep(received);
            return None;
        };
        if received.signal == Signal::CONT && self.was_resumed(child) {
            // ^Z has stopped the child's whole group. This is job control, and none
            // of the signals that can be rewritten.
            return Some((Signal::CONT, kill::signal_child(child, true, Signal::CONT)));
        }
        let signal = self.setting.rewrite.apply(received.signal)?;
        let received = Received { signal, ..*received };
        let to_group = self.setting.to_group && !self.has_handed_over;
        let result =
            self.signal_main(signal).unwrap_or_else(|| kill::forward(child, to_group, &received));
        Some((signal, result))
    }

    /// For a child that is still to come; a later one was not meant.
    fn keep(&mut self, received: &Received) {
        // A key of job control was not meant for what is not there.
        if received.signal.is_job_control() {
            return;
        }
        let is_pending = |early: &Received| early.signal == received.signal;
        let is_merged = !received.signal.is_real_time() && self.early.iter().any(is_pending);
        if self.child.is_none() && !is_merged && self.early.len() < EARLY_MAX {
            self.early.push(*received);
        }
    }

    /// A shell's `fg`, also of a castoff that was started in the background,
    /// or `bg`; says whether castoff had suspended itself.
    fn was_resumed(&mut self, child: Pid) -> bool {
        if let Some(terminal) = &self.launcher.terminal {
            terminal.hand_over(child);
        }
        std::mem::take(&mut self.is_suspended)
    }

    pub(super) fn signal_child(&mut self, signal: Signal, to_group: bool) {
        let Some(child) = self.child.filter(|_| self.child_is_up) else { return };
        // Whoever took the child's place has another's group.
        let to_group = to_group && !self.has_handed_over;
        let main = self.signal_main(signal);
        let result = main.unwrap_or_else(|| kill::signal_child(child, to_group, signal));
        self.note_forwarded(signal, None, result);
    }

    /// `sender` is whose signal it was; `None`: castoff's own.
    pub(super) fn note_forwarded(
        &mut self,
        signal: Signal,
        sender: Option<death::Sender>,
        result: Result<i32, Errno>,
    ) {
        match result {
            Ok(target) => {
                self.witness.has_sent(signal, sender);
                self.status.send_modify(|status| status.signals_forwarded.add(signal));
                events::signal_forwarded(signal, target);
            }
            Err(error) => {
                let child = self.child.map_or(0, Pid::as_raw);
                events::signal_forward_failed(signal, child, error.desc());
            }
        }
    }

    /// With its name, if that is wanted.
    pub(super) fn sender_of(&self, received: &Received, with_name: bool) -> death::Sender {
        match received.sender {
            Sender::Outside { uid } => death::Sender::Outside { uid },
            Sender::Kernel => death::Sender::Kernel,
            Sender::Process { pid, uid } => {
                let name = with_name.then(|| tree::command(&self.setting.proc_root, pid));
                death::Sender::Process { pid, uid, command: name.flatten() }
            }
        }
    }
}
