//! Kills by the kernel's OOM killer: the counters of a group in, who was killed
//! out.
//!
//! Owns what is known from one look to the next, so that each kill is told once
//! and, as far as that can be known, of the right process. It never reads a
//! file: `supervisor` looks.

use std::time::{Duration, Instant};

/// How long a kill waits for the end of a child that seems to be its victim. One
/// with much memory takes seconds; one that only looks like it never ends.
const ENDING_TIME: Duration = Duration::from_secs(10);

/// The counters of one group. The kernel counts before it sends SIGKILL
/// (`__oom_kill_process`: "Raise event before sending signal"), so that whoever
/// sees the victim's end sees its count as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OomCounts {
    /// Processes that were killed, by any limit or for want of memory on the
    /// machine (`oom_kill`).
    pub(crate) kills: u64,
    /// How often the group was killed as a whole (`oom_group_kill`, Linux 5.17).
    pub(crate) group_kills: u64,
    /// It is killed as a whole (`memory.oom.group`). Asked for besides, since
    /// `oom_group_kill` is counted only after the first victim has its SIGKILL.
    pub(crate) is_killed_whole: bool,
}

impl OomCounts {
    /// The text of v2's `memory.events`, of its `.local` or of v1's
    /// `memory.oom_control`: a name and a number in each line. `None`: it does
    /// not count kills, as v1 before Linux 4.13.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let of = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.split_once(' '));
            values.find_map(|(key, value)| (key == name).then(|| value.trim().parse().ok())?)
        };
        let group_kills = of("oom_group_kill").unwrap_or_default();
        Some(Self { kills: of("oom_kill")?, group_kills, is_killed_whole: false })
    }
}

/// Who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Child,
    /// Another process of the group.
    Descendant,
    /// Every process of the group at once, but those that may not be killed
    /// (`oom_score_adj` -1000).
    Group,
}

impl Victim {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Descendant => "descendant",
            Self::Group => "group",
        }
    }
}

/// Kills to tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OomKill {
    /// At least 1.
    pub(crate) count: u64,
    pub(crate) victim: Victim,
}

/// Where the child stands at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildAtLook {
    /// It runs, or there is none.
    Unharmed,
    /// Somebody has killed it, and not castoff, or it ends already: it may be a
    /// victim.
    Ending,
    /// castoff has killed it: whatever is counted from now on is another's.
    Struck,
    /// It has just been reaped, ended by SIGKILL.
    Killed {
        /// castoff had sent one.
        by_castoff: bool,
    },
}

/// What a look has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What is to be told, in this order.
    pub(crate) kills: Vec<OomKill>,
    /// The OOM killer has ended the child.
    pub(crate) is_childs_end: bool,
}

/// The counters from look to look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OomWatch {
    last: Option<OomCounts>,
    /// Kills that wait for the child's end, since then.
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    kills: u64,
    is_group: bool,
    since: Instant,
}

impl OomWatch {
    /// What was counted before is nobody's of this life.
    pub(crate) fn new(counts: Option<OomCounts>) -> Self {
        Self { last: counts, held: None }
    }

    /// Takes the counters as they are now; `None`: they cannot be read. `child` is
    /// asked only when there is something to tell.
    pub(crate) fn look(
        &mut self,
        counts: Option<OomCounts>,
        child: impl FnOnce() -> ChildAtLook,
        now: Instant,
    ) -> Seen {
        let (rise, is_group) = self.rise(counts);
        let held = self.held.take();
        let held_kills = held.map_or(0, |held| held.kills);
        let kills = held_kills.saturating_add(rise);
        if kills == 0 {
            return Seen::default();
        }
        let is_group = is_group || held.is_some_and(|held| held.is_group);
        let since = held.map_or(now, |held| held.since);
        match child() {
            ChildAtLook::Ending if now.saturating_duration_since(since) < ENDING_TIME => {
                self.held = Some(Held { kills, is_group, since });
                Seen::default()
            }
            ChildAtLook::Struck => {
                self.held = held;
                Seen { kills: told(rise, false, is_group), is_childs_end: false }
            }
            ChildAtLook::Killed { by_castoff } => {
                let is_childs_end = held_kills > 0 || !by_castoff;
                Seen { kills: told(kills, is_childs_end, is_group), is_childs_end }
            }
            ChildAtLook::Unharmed | ChildAtLook::Ending => {
                Seen { kills: told(kills, false, is_group), is_childs_end: false }
            }
        }
    }

    /// How many kills there are since the last look, and whether they are a
    /// group's. Counters that run backwards are another group's: a new beginning.
    fn rise(&mut self, counts: Option<OomCounts>) -> (u64, bool) {
        let Some(counts) = counts else { return (0, false) };
        let Some(last) = self.last.replace(counts) else { return (0, false) };
        let is_group = counts.is_killed_whole || counts.group_kills > last.group_kills;
        (counts.kills.saturating_sub(last.kills), is_group)
    }
}

/// `kills` as they are told, the child's first.
fn told(kills: u64, has_child: bool, is_group: bool) -> Vec<OomKill> {
    let of = |count, victim| (count > 0).then_some(OomKill { count, victim });
    if is_group {
        return of(kills, Victim::Group).into_iter().collect();
    }
    let childs = u64::from(has_child).min(kills);
    let all = [of(childs, Victim::Child), of(kills - childs, Victim::Descendant)];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
