//! The counters of the OOM killer, from the group of the process.
//!
//! It reads and never decides: whose end a kill was is told by `policy::oom`.

use std::path::Path;

use super::{Groups, read};
use crate::policy::limits::Version;
use crate::policy::oom::OomCounts;

impl Groups {
    /// What has been counted for the group of the process; `None`: nobody counts.
    ///
    /// On v2 `memory.events` counts for whatever lies below the group as well
    /// (`cgroup-v2.rst`), on v1 `memory.oom_control` for the group alone. Where
    /// the group has no memory controller its memory is its nearest ancestor's:
    /// there only `.local` leaves out those that have groups of their own.
    pub(crate) fn oom_counts(&self) -> Option<OomCounts> {
        let group = self.memory.as_ref()?;
        group.levels.iter().enumerate().find_map(|(nth, dir)| {
            let (file, is_local) = match group.version {
                Version::V1 => ("memory.oom_control", false),
                Version::V2 if nth == 0 => ("memory.events", false),
                Version::V2 => ("memory.events.local", true),
            };
            let counts = OomCounts::parse(&read(&dir.join(file)).ok()??)?;
            // Whose group is killed with an ancestor is not known.
            let is_killed_whole = !is_local && is_killed_whole(dir);
            Some(OomCounts { is_killed_whole, ..counts })
        })
    }
}

/// v2's `memory.oom.group`.
fn is_killed_whole(dir: &Path) -> bool {
    let text = read(&dir.join("memory.oom.group")).ok().flatten();
    text.is_some_and(|text| text.trim_ascii() == b"1")
}
