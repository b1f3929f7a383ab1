//! Whose end it was: the child's, a hook's or another command's, or an orphan's.
//!
//! Turns what the reaper reports into events. It waits for nobody; the only
//! `waitpid` is in `system::reaper`.

use super::Supervisor;
use crate::log::events;
use crate::policy::exit::ExitReason;
use crate::policy::hooks::HookEnd;
use crate::policy::lifecycle::Event;
use crate::policy::signal::Signal;
use crate::system::reaper::{self, Change, Left};
use crate::system::{Pid, terminal};

/// How many turns of reaping the child's end is worth: some 16,000 zombies, or
/// 30 ms.
const LAST_TURNS: usize = 64;

impl Supervisor {
    pub(super) fn reap(&mut self) {
        // Whoever has said something and ended is known as long as it is a zombie.
        self.take_datagrams();
        let mut orphans = 0;
        let mut own = Vec::new();
        let mut main_end = None;
        let mut was_one_killed = false;
        let mut left = Left::More;
        for _ in 0..LAST_TURNS {
            left = reaper::reap(|pid, change| match change {
                _ if self.is_child(pid)
                    || self.hooks.is(pid)
                    || self.is_reaction(pid)
                    || self.checks.is(pid) =>
                {
                    own.push((pid, change));
                }
                Change::Ended { .. } if self.refused.contains(&pid) => {
                    self.refused.retain(|refused| *refused != pid);
                }
                Change::Ended { reason, is_core_dumped } => {
                    if self.main.as_ref().is_some_and(|main| main.pid() == pid.as_raw()) {
                        main_end = Some((reason, is_core_dumped));
                    }
                    was_one_killed |= reason == ExitReason::Signal(Signal::KILL);
                    orphans += 1;
                    events::orphan_reaped(pid.as_raw(), reason, self.setting.warn_on_orphans);
                }
                Change::Stopped(_) | Change::Continued => {}
            });
            // Whoever the child has left behind will be told to end: its zombies
            // are not among them.
            if left != Left::More || own.is_empty() {
                break;
            }
        }
        self.must_reap = left == Left::More;
        if orphans > 0 {
            self.status.send_modify(|status| status.orphans_reaped += orphans);
        }
        let is_last = left == Left::Nobody;
        let has_died = |(pid, change): &(Pid, Change)| {
            matches!(change, Change::Ended { .. }) && self.is_child(*pid)
        };
        // The child's own end is looked at with it.
        if was_one_killed && !own.iter().any(has_died) {
            self.look_at_oom();
        }
        // The child first: whoever else has ended with it must not have it told.
        // A hook comes last: it may be what castoff's own end waits for.
        own.sort_by_key(|(pid, _)| (!self.is_child(*pid), self.hooks.is(*pid)));
        for (nth, (pid, change)) in own.iter().enumerate() {
            // Of two that have ended only the second can be the last.
            let is_last = is_last && nth + 1 == own.len();
            match *change {
                Change::Ended { reason, .. } if self.hooks.is(*pid) => {
                    self.hooks.end(reason, self.lifecycle.has_hook_timed_out());
                    self.on(Event::HookFinished { end: HookEnd::Exited(reason), is_last });
                }
                Change::Ended { reason, .. } if self.checks.is(*pid) => {
                    self.check_command_ended(*pid, reason);
                }
                Change::Ended { reason, .. } if self.is_reaction(*pid) => {
                    self.reaction_ended(*pid, reason);
                }
                _ if !self.is_child(*pid) => {}
                Change::Stopped(by) => {
                    // Without a terminal no shell waits, whatever the groups look like.
                    let has_job_control = self.launcher.terminal.is_some()
                        && terminal::has_job_control(&self.setting.proc_root);
                    self.on(Event::ChildStopped { by, has_job_control });
                }
                Change::Continued => self.on(Event::ChildContinued),
                Change::Ended { .. } if self.hand_over() => {}
                Change::Ended { reason, is_core_dumped } => {
                    // The child has left it to castoff, and it has ended since.
                    let (reason, is_core_dumped) = main_end.unwrap_or((reason, is_core_dumped));
                    self.child_is_up = false;
                    self.notify.child_ended();
                    // Keys are castoff's now, until there is another child.
                    self.release_terminal();
                    self.child_exited(reason, is_core_dumped, is_last);
                }
            }
        }
        if is_last {
            self.on(Event::TreeGone);
        }
    }

    /// The child that runs: what ran before has lost its pid, perhaps to another.
    fn is_child(&self, pid: Pid) -> bool {
        self.child_is_up && self.child == Some(pid)
    }
}
