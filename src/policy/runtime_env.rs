//! Which variables tell the child's runtime what it may use: `Limits`, the
//! program and what is set already in, variables to add out.
//!
//! Each runtime rounds a fraction of a CPU in its own way, and that way is kept.
//! A variable that is set, even to nothing, is somebody's decision and is never
//! touched, but for the strings of options in `options`; without a limit there
//! is nothing to say. It may be asked again whenever a limit changes.

mod go;
mod options;

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::limits::{Limit, Limits};
use super::program::Program;

/// A runtime whose own variables are set. Only those are here that cannot break
/// a start and that the runtime does not know better by itself: neither the
/// number of CPUs of a JVM, of .NET or of the BEAM, nor Node's pool of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `GOMAXPROCS`, unless the program reads the limit itself, and `GOMEMLIMIT`.
    Go,
    /// `OMP_NUM_THREADS`, which coreutils' `nproc` follows too.
    OpenMp,
    /// `PYTHON_CPU_COUNT`.
    Python,
    /// `-XX:MaxRAMPercentage` in `JAVA_TOOL_OPTIONS`.
    Java,
    /// `--max-old-space-size` in `NODE_OPTIONS`.
    Node,
    /// `WEB_CONCURRENCY`, the workers of gunicorn, uvicorn and Puma.
    Web,
    /// `JULIA_NUM_THREADS`, which makes a program with one thread one with more.
    Julia,
    /// `MALLOC_ARENA_MAX`, against memory that glibc's malloc keeps for threads.
    Malloc,
}

impl Profile {
    pub(crate) const ALL: [Self; 8] = [
        Self::Go,
        Self::OpenMp,
        Self::Python,
        Self::Java,
        Self::Node,
        Self::Web,
        Self::Julia,
        Self::Malloc,
    ];

    /// Those whose variables can break nobody's start.
    pub(crate) const DEFAULT: [Self; 3] = [Self::Go, Self::OpenMp, Self::Python];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::OpenMp => "openmp",
            Self::Python => "python",
            Self::Java => "java",
            Self::Node => "node",
            Self::Web => "web",
            Self::Julia => "julia",
            Self::Malloc => "malloc",
        }
    }
}

/// How a fraction of a CPU becomes a number of threads: in `GOMAXPROCS`,
/// `OMP_NUM_THREADS`, `PYTHON_CPU_COUNT`, `JULIA_NUM_THREADS`, and where
/// `WEB_CONCURRENCY` goes by CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As the runtime itself does or would do.
    #[default]
    Auto,
    Floor,
    Ceil,
}

impl Rounding {
    /// Whether to round up, for a runtime that would do as `own_is_up` says.
    fn is_up(self, own_is_up: bool) -> bool {
        match self {
            Self::Auto => own_is_up,
            Self::Floor => false,
            Self::Ceil => true,
        }
    }
}

/// What is exported, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sizing {
    /// Without any, nothing is exported at all, castoff's own variables
    /// included.
    pub(crate) profiles: Vec<Profile>,
    pub(crate) rounding: Rounding,
    /// The share of the memory limit that is `GOMEMLIMIT`, above 0 and at most
    /// 1. The shares that the JVM and Node get are of their heaps only, and fixed.
    pub(crate) memory_ratio: f64,
}

impl Default for Sizing {
    fn default() -> Self {
        Self { profiles: Profile::DEFAULT.to_vec(), rounding: Rounding::Auto, memory_ratio: 0.9 }
    }
}

/// A variable of the child's environment that is castoff's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) name: &'static str,
    /// All of it that is castoff's: what the variable held before may be secret.
    pub(crate) value: String,
    pub(crate) change: Change,
    /// The rule and where the limit was found, in a few words.
    pub(crate) why: String,
}

/// What becomes of the variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There was none.
    Added,
    /// The value follows what it held, after a space.
    Appended,
}

/// A variable that a profile stands for, and why it is not castoff's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Withheld {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// What follows from the limits, or the Pod. Each name is in one of the two, once
/// at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exports {
    pub(crate) exports: Vec<Export>,
    /// Only where there is a limit, or a Pod, to tell of.
    pub(crate) withheld: Vec<Withheld>,
}

impl Exports {
    /// Adds those of other variables.
    pub(crate) fn extend(&mut self, others: Self) {
        self.exports.extend(others.exports);
        self.withheld.extend(others.withheld);
    }
}

/// What the child gets anyway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) environment: &'a [CString],
    /// The child's command with its arguments.
    pub(crate) command: &'a [OsString],
}

impl<'a> Surroundings<'a> {
    /// The value of a variable, also when it is empty. Of several entries the
    /// first, which is what `getenv` gives.
    pub(crate) fn value_of(&self, name: &str) -> Option<&'a OsStr> {
        let entry = |entry: &'a CString| value_in(entry.to_bytes(), name);
        self.environment.iter().find_map(entry).map(OsStr::from_bytes)
    }
}

/// The value in an entry of an environment, if the entry is that variable's.
pub(crate) fn value_in<'a>(entry: &'a [u8], name: &str) -> Option<&'a [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Whether the exports depend on what the program is. If not, it need not be
/// looked at.
pub(crate) fn depend_on_program(
    limits: &Limits,
    sizing: &Sizing,
    surroundings: &Surroundings<'_>,
) -> bool {
    sizing.profiles.contains(&Profile::Go)
        && limits.cpus.is_some()
        && surroundings.value_of(go::THREADS).is_none()
}

/// The variables to add. `program` may be the default one when nothing depends
/// on it.
pub(crate) fn exports(
    limits: &Limits,
    sizing: &Sizing,
    program: &Program,
    surroundings: &Surroundings<'_>,
) -> Exports {
    let mut answer = Answer { surroundings, program, found: Exports::default() };
    if sizing.profiles.is_empty() {
        return answer.found;
    }
    let Limits { cpus, memory_bytes, pids, .. } = limits;
    if let Some(Limit { value, source }) = cpus {
        answer.add("CASTOFF_CPUS", value.to_string(), format!("limit from {source}"));
    }
    if let Some(Limit { value, source }) = memory_bytes {
        answer.add("CASTOFF_MEMORY_BYTES", value.to_string(), format!("limit from {source}"));
    }
    if let Some(Limit { value, source }) = pids {
        answer.add("CASTOFF_PIDS", value.to_string(), format!("limit from {source}"));
    }
    for profile in &sizing.profiles {
        match profile {
            Profile::Go => go::add(&mut answer, limits, sizing),
            Profile::OpenMp => answer.add_threads("OMP_NUM_THREADS", cpus, sizing, false),
            Profile::Python => answer.add_threads("PYTHON_CPU_COUNT", cpus, sizing, true),
            Profile::Java => options::add_java(&mut answer, memory_bytes.as_ref()),
            Profile::Node => options::add_node(&mut answer, memory_bytes.as_ref()),
            Profile::Web => answer.add_workers(limits, sizing.rounding),
            Profile::Julia => answer.add_threads("JULIA_NUM_THREADS", cpus, sizing, false),
            Profile::Malloc => answer.add_arenas(memory_bytes.as_ref()),
        }
    }
    answer.found
}

/// What has been found so far.
struct Answer<'a> {
    surroundings: &'a Surroundings<'a>,
    program: &'a Program,
    found: Exports,
}

impl<'a> Answer<'a> {
    /// The value that the program will see without castoff.
    fn value_of(&self, name: &str) -> Option<&'a OsStr> {
        self.program.value_of(name).or_else(|| self.surroundings.value_of(name))
    }

    fn is_known(&self, name: &str) -> bool {
        let Exports { exports, withheld } = &self.found;
        exports.iter().any(|it| it.name == name) || withheld.iter().any(|it| it.name == name)
    }

    fn add(&mut self, name: &'static str, value: String, why: String) {
        if self.value_of(name).is_some() {
            self.withhold(name, "is set already".to_owned());
        } else {
            self.put(name, value, Change::Added, why);
        }
    }

    fn put(&mut self, name: &'static str, value: String, change: Change, why: String) {
        if !self.is_known(name) {
            self.found.exports.push(Export { name, value, change, why });
        }
    }

    fn withhold(&mut self, name: &'static str, why: String) {
        if !self.is_known(name) {
            self.found.withheld.push(Withheld { name, why });
        }
    }

    fn add_threads(
        &mut self,
        name: &'static str,
        cpus: &Option<Limit<f64>>,
        sizing: &Sizing,
        own_is_up: bool,
    ) {
        if let Some(cpus) = cpus {
            let (threads, rule) = rounded(cpus, sizing.rounding.is_up(own_is_up));
            self.add(name, threads.to_string(), rule);
        }
    }

    /// As many workers as there is memory for, and no more than gunicorn's manual
    /// advises for the CPUs: each is a whole process, of which more than the CPUs
    /// can run only compete. One is not exported.
    fn add_workers(&mut self, limits: &Limits, rounding: Rounding) {
        /// What Heroku reckons for each (`WEB_MEMORY` of its buildpacks).
        const WORKER_BYTES: u64 = 512 << 20;
        const NAME: &str = "WEB_CONCURRENCY";
        let Some(memory) = &limits.memory_bytes else { return };
        let by_memory = (memory.value / WORKER_BYTES).max(1);
        let (cpus, source) = match &limits.cpus {
            Some(cpus) => (Some(rounded(cpus, rounding.is_up(true)).0), cpus.source.as_str()),
            None => (limits.affinity.map(u64::from), "affinity and cpuset"),
        };
        let by_cpus = cpus.map(|cpus| (cpus, cpus.saturating_mul(2).saturating_add(1)));
        let (workers, rule) = match by_cpus {
            Some((cpus, workers)) if workers < by_memory => {
                (workers, format!("2 for each CPU and 1; {cpus} CPUs from {source}"))
            }
            _ => (by_memory, format!("1 for each 512 MiB, {}", bytes_of(memory))),
        };
        if workers == 1 {
            // It is what gunicorn and uvicorn do anyway; but Puma would take it for
            // a cluster of one, with a second process beside the worker.
            return self.withhold(NAME, format!("1 worker is the programs' own rule; {rule}"));
        }
        self.add(NAME, workers.to_string(), rule);
    }

    fn add_arenas(&mut self, memory: Option<&Limit<u64>>) {
        const NAME: &str = "MALLOC_ARENA_MAX";
        let Some(memory) = memory else { return };
        let tunables = self.value_of("GLIBC_TUNABLES").unwrap_or_default().as_bytes();
        if contains(tunables, b"glibc.malloc.arena_max") {
            return self.withhold(NAME, "GLIBC_TUNABLES decides".to_owned());
        }
        self.add(NAME, "2".to_owned(), format!("2 where memory is limited, {}", bytes_of(memory)));
    }
}

fn rounded(cpus: &Limit<f64>, is_up: bool) -> (u64, String) {
    let (rule, whole) =
        if is_up { ("ceil", cpus.value.ceil()) } else { ("floor", cpus.value.floor()) };
    let why = format!("{rule}, at least 1; {} CPUs from {}", cpus.value, cpus.source);
    ((whole as u64).max(1), why)
}

fn bytes_of(memory: &Limit<u64>) -> String {
    format!("{} bytes from {}", memory.value, memory.source)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests;
