//! What the groups of the process have used, read on a scrape.
//!
//! Each figure is that of the own group. Where a controller is not turned on for
//! it, the nearest ancestor with one stands in, but never for pressure: all of
//! the machine may wait in there. Some ten files in all; none of them fails.

use std::path::{Path, PathBuf};

use cgroups_rs::fs::cpu::CpuController;

use super::{Roots, read};
use crate::policy::limits::{self, Group, Layout, Version};
use crate::policy::usage::{self, Pressure, RESOURCES, Usage};

/// The directories that usage is read from, own group first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    cpu: Option<Group>,
    cpuacct: Option<Group>,
    pub(super) memory: Option<Group>,
    pids: Option<Group>,
    unified: Option<Group>,
}

impl Groups {
    pub(super) fn new(layout: &Layout, roots: &Roots) -> Self {
        let real = |group: &Option<Group>| {
            group.as_ref().map(|group| Group {
                levels: group.levels.iter().map(|dir| roots.real(dir)).collect(),
                version: group.version,
            })
        };
        Self {
            cpu: real(&layout.cpu),
            cpuacct: real(&layout.cpuacct),
            memory: real(&layout.memory),
            pids: real(&layout.pids),
            unified: real(&layout.unified),
        }
    }

    /// What the group of the process has used so far. `tree` and
    /// `log_lines_dropped` are not known here.
    pub(crate) fn usage(&self) -> Usage {
        let (throttled_periods, throttled_seconds) = self.throttling();
        let (memory_bytes, working_set_bytes) = self.memory();
        Usage {
            memory_bytes,
            working_set_bytes,
            cpu_seconds: self.cpu_seconds(),
            throttled_periods,
            throttled_seconds,
            oom_kills: self.oom_counts().map(|counts| counts.kills),
            pids: first(&self.pids, "pids.current", "pids.current")
                .and_then(|(_, text)| limits::number(text.trim())),
            pressure: RESOURCES.map(|resource| self.pressure(resource)),
            ..Usage::default()
        }
    }

    /// Not by cgroups-rs, which opens eleven files for this one, gives 0 for a
    /// missing one and panics on an empty `memory.numa_stat`.
    fn memory(&self) -> (Option<u64>, Option<u64>) {
        let used = first(&self.memory, "memory.usage_in_bytes", "memory.current");
        let Some((dir, text)) = used else { return (None, None) };
        let Some(bytes) = limits::number(text.trim()) else { return (None, None) };
        let stat = text_of(&dir.join("memory.stat"));
        (Some(bytes), stat.and_then(|stat| usage::working_set(bytes, &stat)))
    }

    fn cpu_seconds(&self) -> Option<f64> {
        let (_, text) = first(&self.cpuacct, "cpuacct.usage", "cpu.stat")?;
        match self.cpuacct.as_ref()?.version {
            Version::V1 => usage::cpu_seconds_v1(&text),
            Version::V2 => usage::cpu_seconds_v2(&text),
        }
    }

    fn throttling(&self) -> (Option<u64>, Option<f64>) {
        let Some(group) = self.cpu.as_ref() else { return (None, None) };
        let of = |dir: &PathBuf| {
            let controller =
                CpuController::new(dir.clone(), PathBuf::new(), group.version == Version::V2);
            let throttling = limits::throttling(&controller.cpu().stat);
            throttling.0.is_some().then_some(throttling)
        };
        group.levels.iter().find_map(of).unwrap_or_default()
    }

    /// With PSI turned off the file is there, and cannot be read.
    fn pressure(&self, resource: &str) -> Pressure {
        let own = self.unified.as_ref().and_then(|group| group.levels.first());
        let text = own.and_then(|dir| text_of(&dir.join(format!("{resource}.pressure"))));
        text.map(|text| usage::pressure(&text)).unwrap_or_default()
    }
}

/// The first level that has the file of that name, and its text.
fn first<'a>(group: &'a Option<Group>, v1: &str, v2: &str) -> Option<(&'a Path, String)> {
    let group = group.as_ref()?;
    let file = match group.version {
        Version::V1 => v1,
        Version::V2 => v2,
    };
    group.levels.iter().find_map(|dir| Some((dir.as_path(), text_of(&dir.join(file))?)))
}

fn text_of(path: &Path) -> Option<String> {
    String::from_utf8(read(path).ok().flatten()?).ok()
}
