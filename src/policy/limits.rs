//! What the cgroups allow: the text of the kernel's files in, `Limits` out.
//!
//! `layout` finds the directories, `values` reads one file's text, and this
//! file takes the lowest of what they say. The texts come from a function, so
//! that only those are fetched that matter. Nothing here fails: whatever cannot
//! be understood limits nothing and becomes a warning.

mod layout;
mod values;

use std::path::{Path, PathBuf};

pub(crate) use layout::{CGROUP, Group, Layout, MEMINFO, MOUNTINFO, USUAL_MOUNT, Version};
use values::{Expected, Parsed};
pub(crate) use values::{figure, number, throttling};

/// The largest of the files is mountinfo: whoever reads it gives no more bytes
/// than these.
pub(crate) const LONGEST: usize = 4 << 20;

/// More warnings than these are one that says how many.
const WARNINGS_MAX: usize = 8;

const STATUS: &str = "/proc/self/status";

/// v1's file with the lowest limit of memory that holds for a group.
const STAT: &str = "memory.stat";

/// The effective limits: the smallest that holds at any visible level.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Which cgroup versions are mounted.
    pub(crate) cgroup: CgroupKind,
    pub(crate) cpus: Option<Limit<f64>>,
    pub(crate) memory_bytes: Option<Limit<u64>>,
    pub(crate) pids: Option<Limit<u64>>,
    pub(crate) levels: Levels,
    /// How many CPUs the process may run on, at least 1: the smaller of its
    /// affinity and its cpuset, whether or not that is less than the machine
    /// has.
    pub(crate) affinity: Option<u32>,
    /// The limit of CPUs is the quota of an ancestor: those see none, or a higher
    /// one, that look at the group of the process only.
    pub(crate) cpus_are_inherited: bool,
}

/// How far above the group of the process the group is that a limit is of: 0 for
/// its own. `None`: of none, or of one that cannot be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) cpus: Option<usize>,
    pub(crate) memory_bytes: Option<usize>,
    pub(crate) pids: Option<usize>,
}

/// A limit and where it was found: the file, for instance
/// `/sys/fs/cgroup/cpu.max`, or `affinity`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit<T> {
    pub(crate) value: T,
    pub(crate) source: String,
}

/// The cgroup set-up of the system, as `limits_detected` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CgroupKind {
    V1,
    V2,
    Hybrid,
    #[default]
    None,
}

impl CgroupKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::None => "none",
        }
    }
}

/// A file's bytes, `None` when there is no such file, or why it cannot be read.
pub(crate) type Text = Result<Option<Vec<u8>>, String>;

/// What `find` found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) limits: Limits,
    pub(crate) layout: Layout,
    /// One line each, without an end.
    pub(crate) warnings: Vec<String>,
    pub(crate) unclear: Unclear,
}

/// How many files of each kind could not be read or understood: with one of
/// them, a limit that was not found may be there all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unclear {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: usize,
    pub(crate) pids: usize,
}

/// Finds the effective limits of the process. `online` is the number of CPUs
/// that the machine has in use; `read` gives the text of a file by the path
/// under which the user would find it.
pub(crate) fn find(online: Option<u32>, mut read: impl FnMut(&Path) -> Text) -> Found {
    let mut search = Search::new(&mut read);
    let mut layout = search.layout();
    let (mut limits, unclear) = search.limits(&layout, online);
    if layout.is_guessed && !search.has_seen_a_limit_file {
        layout.kind = CgroupKind::None;
        limits.cgroup = layout.kind;
    }
    Found { limits, layout, warnings: search.told_warnings(), unclear }
}

/// Reads the limits again where `find` has found them.
pub(crate) fn find_again(
    layout: &Layout,
    online: Option<u32>,
    mut read: impl FnMut(&Path) -> Text,
) -> (Limits, Unclear) {
    Search::new(&mut read).limits(layout, online)
}

/// The files that somebody writes to change a limit, of all levels that can be
/// seen. What follows from one, as `cpuset.cpus.effective` does, is not written.
pub(crate) fn files_of_change(layout: &Layout) -> Vec<PathBuf> {
    let files = |group: &Option<Group>, v1: &[&str], v2: &[&str]| -> Vec<PathBuf> {
        let Some(group) = group else { return Vec::new() };
        let names = match group.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        let of_level = |dir: &PathBuf| names.iter().map(|name| dir.join(name)).collect::<Vec<_>>();
        group.levels.iter().flat_map(of_level).collect()
    };
    [
        files(&layout.cpu, &["cpu.cfs_quota_us", "cpu.cfs_period_us"], &["cpu.max"]),
        files(&layout.cpuset, &["cpuset.cpus"], &["cpuset.cpus"]),
        files(&layout.memory, &["memory.limit_in_bytes"], &["memory.max"]),
        files(&layout.pids, &["pids.max"], &["pids.max"]),
    ]
    .concat()
}

/// How many CPUs a list such as that of `/sys/devices/system/cpu/online` names.
pub(crate) fn cpu_count(list: &[u8]) -> Option<u32> {
    values::cpu_list(&String::from_utf8_lossy(list)).ok().flatten()
}

/// Whether the limit is a quota of another group than the first.
fn is_inherited_quota(limit: &Limit<f64>, layout: &Layout) -> bool {
    let source = Path::new(&limit.source);
    let is_quota = ["cpu.max", "cpu.cfs_quota_us"].iter().any(|file| source.ends_with(file));
    let own = layout.cpu.as_ref().and_then(|group| group.levels.first());
    is_quota && source.parent() != own.map(PathBuf::as_path)
}

/// The level of the file that a limit is from.
fn level_of(source: &str, layout: &Layout) -> Option<usize> {
    let file = Path::new(source);
    if file.ends_with(STAT) {
        // It tells the limit of an ancestor, and not of which.
        return None;
    }
    let Layout { cpu, cpuset, memory, pids, .. } = layout;
    let groups = [cpu, cpuset, memory, pids].into_iter().flatten();
    let level = |group: &Group| group.levels.iter().position(|at| Some(&**at) == file.parent());
    groups.filter_map(level).min()
}

/// The lowest amount of memory above which v2 slows the processes down. It kills
/// nobody, and so is no limit.
pub(crate) fn memory_high(
    layout: &Layout,
    mut read: impl FnMut(&Path) -> Text,
) -> Option<Limit<u64>> {
    let group = layout.memory.as_ref().filter(|group| group.version == Version::V2);
    let mut search = Search::new(&mut read);
    search.lowest(group, |search, dir, _| search.limit(dir.join("memory.high"), values::amount))
}

struct Search<'a> {
    read: &'a mut dyn FnMut(&Path) -> Text,
    warnings: Vec<String>,
    has_seen_a_limit_file: bool,
}

impl<'a> Search<'a> {
    fn new(read: &'a mut dyn FnMut(&Path) -> Text) -> Self {
        Self { read, warnings: Vec::new(), has_seen_a_limit_file: false }
    }

    fn limits(&mut self, layout: &Layout, online: Option<u32>) -> (Limits, Unclear) {
        let mut told = self.warnings.len();
        let mut new_warnings = |search: &Self| {
            search.warnings.len() - std::mem::replace(&mut told, search.warnings.len())
        };
        let (cpus, affinity) = self.cpus(layout, online);
        let unclear_cpus = new_warnings(self);
        let memory_bytes = self.memory_bytes(layout);
        let unclear_memory = new_warnings(self);
        let pids = self.lowest(layout.pids.as_ref(), |search, dir, _| {
            search.limit(dir.join("pids.max"), values::amount)
        });
        let unclear =
            Unclear { cpus: unclear_cpus, memory_bytes: unclear_memory, pids: new_warnings(self) };
        let cpus_are_inherited =
            cpus.as_ref().is_some_and(|limit| is_inherited_quota(limit, layout));
        let cgroup = layout.kind;
        let levels = Levels {
            cpus: cpus.as_ref().and_then(|limit| level_of(&limit.source, layout)),
            memory_bytes: memory_bytes.as_ref().and_then(|limit| level_of(&limit.source, layout)),
            pids: pids.as_ref().and_then(|limit| level_of(&limit.source, layout)),
        };
        let limits =
            Limits { cgroup, cpus, memory_bytes, pids, levels, affinity, cpus_are_inherited };
        (limits, unclear)
    }

    fn layout(&mut self) -> Layout {
        let cgroup = (self.read)(Path::new(CGROUP)).and_then(must_exist);
        let mountinfo = (self.read)(Path::new(MOUNTINFO)).and_then(must_exist);
        match (&cgroup, &mountinfo) {
            (Ok(_), Ok(_)) => {}
            (Err(cause), Ok(_)) => self.warn(format!(
                "cannot read {CGROUP}: {cause}; limits are taken from the cgroup mount points"
            )),
            (Ok(_), Err(cause)) => self.warn(format!(
                "cannot read {MOUNTINFO}: {cause}; limits are looked for below {USUAL_MOUNT}"
            )),
            (Err(cause), Err(_)) => self.warn(format!(
                "cannot read {CGROUP} and {MOUNTINFO}: {cause}; no cgroup limit is known"
            )),
        }
        if mountinfo.as_ref().is_ok_and(|text| text.len() >= LONGEST) {
            self.warn(format!(
                "cannot use all of {MOUNTINFO}: only {LONGEST} bytes of it were read"
            ));
        }
        let layout = Layout::new(cgroup.ok().as_deref(), mountinfo.ok().as_deref());
        if layout.is_outside {
            self.warn(format!(
                "cannot find the group of {CGROUP}: it is outside of the cgroup namespace, whose \
                 limits are taken instead"
            ));
        }
        for (file, lines) in
            [(CGROUP, layout.skipped.cgroup), (MOUNTINFO, layout.skipped.mountinfo)]
        {
            if lines > 0 {
                self.warn(format!("cannot use {lines} of the lines in {file}: skipped"));
            }
        }
        layout
    }

    /// The limit in CPUs, and how many the process may run on.
    fn cpus(&mut self, layout: &Layout, online: Option<u32>) -> (Option<Limit<f64>>, Option<u32>) {
        let quota = self.lowest(layout.cpu.as_ref(), Self::quota);
        let cpuset = layout.cpuset.as_ref().and_then(|group| self.cpuset(group));
        let affinity = self
            .file(Path::new(STATUS), values::affinity)
            .map(|value| Limit { value, source: "affinity".to_owned() });
        // The kernel narrows the affinity to the cpuset: when they agree, the
        // cpuset is the reason.
        let usable = lower(cpuset, affinity);
        let count = usable.as_ref().map(|limit| limit.value);
        // Running on every CPU of the machine is no limit; below a quota it
        // still counts, for a quota may be larger than the machine.
        let is_limit = |limit: &Limit<u32>| {
            quota.is_some() || online.is_some_and(|online| limit.value < online)
        };
        let usable = usable
            .filter(is_limit)
            .map(|limit| Limit { value: f64::from(limit.value), source: limit.source });
        (lower(quota, usable), count)
    }

    /// That of the nearest group which has one: it is effective already, and an
    /// ancestor may have fewer CPUs left, having given those of a partition away
    /// (cgroup-v2.rst, `cpuset.cpus.partition`).
    fn cpuset(&mut self, group: &Group) -> Option<Limit<u32>> {
        let file = match group.version {
            Version::V1 => "cpuset.effective_cpus",
            Version::V2 => "cpuset.cpus.effective",
        };
        group.levels.iter().find_map(|dir| self.limit(dir.join(file), values::cpu_list))
    }

    fn quota(&mut self, dir: &Path, version: Version) -> Option<Limit<f64>> {
        match version {
            Version::V2 => self.limit(dir.join("cpu.max"), values::cpu_max),
            Version::V1 => {
                let quota = self.limit(dir.join("cpu.cfs_quota_us"), values::cfs_quota)?;
                // A quota without its period is as odd as an empty one.
                let path = dir.join("cpu.cfs_period_us");
                let text = self.text(&path).unwrap_or_default();
                let period = self.parsed(&path, &text, values::cfs_period)?;
                let value = values::cpus(quota.value, period)?;
                Some(Limit { value, source: quota.source })
            }
        }
    }

    fn memory_bytes(&mut self, layout: &Layout) -> Option<Limit<u64>> {
        let group = layout.memory.as_ref()?;
        let own = group.levels.first()?;
        let hierarchical = match group.version {
            Version::V1 => self.limit(own.join(STAT), values::hierarchical_memory_limit),
            Version::V2 => None,
        };
        // An ancestor's limit below it is not in force: with `use_hierarchy` off
        // a v1 group counts for itself only (cgroup-v1/memory.rst, 6).
        let in_force = hierarchical.as_ref().map_or(0, |limit| limit.value);
        let visible = self.lowest(Some(group), |search, dir, version| {
            let file = match version {
                Version::V1 => "memory.limit_in_bytes",
                Version::V2 => "memory.max",
            };
            let limit = search.limit(dir.join(file), values::amount);
            limit.filter(|limit| limit.value >= in_force || dir == own)
        });
        let limit = lower(visible, hierarchical).filter(|limit| limit.value < u64::MAX)?;
        // lxcfs puts the limit itself into MemTotal, which is then no measure
        // of whether it limits anything.
        if !layout.meminfo_is_covered
            && let Ok(Some(meminfo)) = (self.read)(Path::new(MEMINFO))
            && let Some(total) = values::mem_total(&String::from_utf8_lossy(&meminfo))
            && limit.value >= total
        {
            return None;
        }
        Some(limit)
    }

    /// The lowest limit over the levels of a group; of equal ones that of the
    /// group nearest to the process.
    fn lowest<T: PartialOrd>(
        &mut self,
        group: Option<&Group>,
        limit_at: impl Fn(&mut Self, &Path, Version) -> Option<Limit<T>>,
    ) -> Option<Limit<T>> {
        let group = group?;
        group
            .levels
            .iter()
            .fold(None, |lowest, dir| lower(lowest, limit_at(self, dir, group.version)))
    }

    fn limit<T>(&mut self, path: PathBuf, parse: fn(&str) -> Parsed<T>) -> Option<Limit<T>> {
        let value = self.file(&path, parse)?;
        Some(Limit { value, source: path.display().to_string() })
    }

    /// What a file says; nothing when it does not exist, as at the root of v2
    /// or where a controller is not turned on.
    fn file<T>(&mut self, path: &Path, parse: fn(&str) -> Parsed<T>) -> Option<T> {
        let text = self.text(path)?;
        self.parsed(path, &text, parse)
    }

    fn text(&mut self, path: &Path) -> Option<String> {
        match (self.read)(path) {
            Ok(bytes) => {
                let bytes = bytes?;
                self.has_seen_a_limit_file |= path != Path::new(STATUS);
                let text = String::from_utf8(bytes);
                Some(text.unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
            }
            Err(cause) => {
                self.warn(format!("cannot read {}: {cause}", path.display()));
                None
            }
        }
    }

    fn parsed<T>(&mut self, path: &Path, text: &str, parse: fn(&str) -> Parsed<T>) -> Option<T> {
        parse(text).unwrap_or_else(|Expected(expected)| {
            let start: String = text.trim_end().chars().take(40).collect();
            self.warn(format!("cannot use {} {start:?}: expected {expected}", path.display()));
            None
        })
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// A group that may not be looked at has a warning for each file and level.
    fn told_warnings(mut self) -> Vec<String> {
        let more = self.warnings.len().saturating_sub(WARNINGS_MAX);
        if more > 0 {
            self.warnings.truncate(WARNINGS_MAX);
            self.warnings.push(format!("{more} more of this kind"));
        }
        self.warnings
    }
}

fn must_exist(text: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    text.ok_or_else(|| "No such file or directory".to_owned())
}

/// The lower of two limits, the first when they are equal.
fn lower<T: PartialOrd>(first: Option<Limit<T>>, second: Option<Limit<T>>) -> Option<Limit<T>> {
    match (first, second) {
        (Some(first), Some(second)) if second.value < first.value => Some(second),
        (None, second) => second,
        (first, _) => first,
    }
}

#[cfg(test)]
mod tests;
