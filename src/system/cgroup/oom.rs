//! The counters of the OOM killer, from the group of the process.
//!
//! It reads and never decides: whose end a kill was is told by `policy::oom`.

use std::path::{Path, PathBuf};

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
            // Whose group is killed with an ancestor is not known.
            let (file, may_be_whole) = match group.version {
                Version::V1 => ("memory.oom_control", false),
                Version::V2 if nth == 0 => ("memory.events", true),
                Version::V2 => ("memory.events.local", false),
            };
            let counts = OomCounts::parse(&read(&dir.join(file)).ok()??)?;
            let is_killed_whole = may_be_whole && is_killed_whole(dir);
            Some(OomCounts { is_killed_whole, ..counts })
        })
    }

    /// The file of these counts, where the kernel tells of a change of it as of a
    /// write (`cgroup-v2.rst`): on v2.
    pub(crate) fn oom_event_file(&self) -> Option<PathBuf> {
        let group = self.memory.as_ref().filter(|group| group.version == Version::V2)?;
        let file = |(nth, dir): (usize, &PathBuf)| {
            dir.join(if nth == 0 { "memory.events" } else { "memory.events.local" })
        };
        group.levels.iter().enumerate().map(file).find(|file| file.exists())
    }
}

/// v2's `memory.oom.group`.
fn is_killed_whole(dir: &Path) -> bool {
    let text = read(&dir.join("memory.oom.group")).ok().flatten();
    text.is_some_and(|text| text.trim_ascii() == b"1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limits::Group;
    use std::fs;

    /// A group `own` below `above`, with these files.
    fn counts(name: &str, version: Version, files: &[(&str, &str)]) -> Option<OomCounts> {
        let name = format!("castoff-oom-{}-{name}", std::process::id());
        let above = std::env::temp_dir().join(name);
        let own = above.join("own");
        fs::create_dir_all(&own).expect("a new directory");
        for (file, text) in files {
            fs::write(above.join(file), text).expect("a file");
        }
        let levels: Vec<PathBuf> = vec![own, above.clone()];
        let mut groups = Groups::default();
        groups.memory = Some(Group { version, levels });
        let counts = groups.oom_counts();
        fs::remove_dir_all(above).expect("it is there");
        counts
    }

    fn kills(kills: u64) -> Option<OomCounts> {
        Some(OomCounts { kills, ..OomCounts::default() })
    }

    #[test]
    fn the_own_group_counts() {
        let v1 = [
            ("own/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("memory.oom_control", "oom_kill 9\n"),
        ];
        assert_eq!(counts("v1", Version::V1, &v1), kills(3));
        let v2 = [
            ("own/memory.events", "low 0\noom_kill 4\n"),
            ("own/memory.events.local", "oom_kill 1\n"),
            ("own/memory.oom.group", "0\n"),
            ("memory.events", "oom_kill 9\n"),
        ];
        assert_eq!(counts("v2", Version::V2, &v2), kills(4));
    }

    #[test]
    fn a_group_that_is_killed_whole_says_so() {
        let v2 = [
            ("own/memory.events", "oom_kill 4\noom_group_kill 1\n"),
            ("own/memory.oom.group", "1\n"),
        ];
        let expected = OomCounts { kills: 4, group_kills: 1, is_killed_whole: true };
        assert_eq!(counts("whole", Version::V2, &v2), Some(expected));
    }

    #[test]
    fn an_ancestor_counts_for_those_without_a_controller_of_their_own() {
        let v2 = [
            ("memory.events", "oom_kill 9\n"),
            ("memory.events.local", "oom_kill 2\n"),
            ("memory.oom.group", "1\n"),
        ];
        assert_eq!(counts("above", Version::V2, &v2), kills(2));
        // Nobody counts.
        let odd = [("own/memory.events", ""), ("memory.events", "oom_kill 9\n")];
        assert_eq!(counts("odd", Version::V2, &odd), None);
        assert_eq!(counts("none", Version::V1, &[]), None);
        assert_eq!(Groups::default().oom_counts(), None);
    }
}
