//! Which variables tell the child's runtime what it may use: `Limits` and what
//! is set already in, variables to add out.
//!
//! Each runtime rounds a fraction of a CPU in its own way, and that way is kept.
//! A variable that is set, even to nothing, is somebody's decision and is never
//! touched; without a limit there is nothing to say.

use super::limits::{Limit, Limits};

/// A runtime whose own variables are set. Only those are here that cannot break
/// a start and that the runtime does not know better by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `GOMAXPROCS`, `GOMEMLIMIT`.
    Go,
    /// `OMP_NUM_THREADS`, which coreutils' `nproc` follows too.
    OpenMp,
    /// `PYTHON_CPU_COUNT`.
    Python,
    /// `-XX:MaxRAMPercentage` in `JAVA_TOOL_OPTIONS`.
    Java,
    /// `--max-old-space-size` in `NODE_OPTIONS`.
    Node,
    /// `WEB_CONCURRENCY`.
    Web,
    /// `JULIA_NUM_THREADS`.
    Julia,
    /// `MALLOC_ARENA_MAX`.
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

/// How a fraction of a CPU becomes a number of threads.
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
    /// The share of the memory limit that Go's heap and stacks may take, above
    /// 0 and at most 1.
    pub(crate) memory_ratio: f64,
}

impl Default for Sizing {
    fn default() -> Self {
        Self { profiles: Profile::DEFAULT.to_vec(), rounding: Rounding::Auto, memory_ratio: 0.9 }
    }
}

/// A variable to add to the child's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// The rule and where the limit was found, in a few words.
    pub(crate) why: String,
}

/// The variables to add. `is_set` says whether the child would have a variable
/// anyway, also one without a value.
pub(crate) fn exports(
    limits: &Limits,
    sizing: &Sizing,
    is_set: impl Fn(&str) -> bool,
) -> Vec<Export> {
    let mut exports: Vec<Export> = Vec::new();
    if sizing.profiles.is_empty() {
        return exports;
    }
    let mut add = |name, value: String, why: String| {
        if !is_set(name) && exports.iter().all(|export| export.name != name) {
            exports.push(Export { name, value, why });
        }
    };
    if let Some(Limit { value, source }) = &limits.cpus {
        add("CASTOFF_CPUS", value.to_string(), format!("limit from {source}"));
    }
    if let Some(Limit { value, source }) = &limits.memory_bytes {
        add("CASTOFF_MEMORY_BYTES", value.to_string(), format!("limit from {source}"));
    }
    if let Some(Limit { value, source }) = &limits.pids {
        add("CASTOFF_PIDS", value.to_string(), format!("limit from {source}"));
    }
    for profile in &sizing.profiles {
        match profile {
            Profile::Go => {
                if let Some(cpus) = &limits.cpus {
                    let (threads, rule) = gomaxprocs(cpus, limits.affinity, sizing.rounding);
                    add("GOMAXPROCS", threads.to_string(), rule);
                }
                // With its own variable set, the automemlimit library in the
                // child derives the limit, and leaves one alone that is set.
                if let Some(memory) =
                    limits.memory_bytes.as_ref().filter(|_| !is_set("AUTOMEMLIMIT"))
                {
                    let (bytes, rule) = gomemlimit(memory, sizing.memory_ratio);
                    add("GOMEMLIMIT", bytes.to_string(), rule);
                }
            }
            Profile::OpenMp => {
                if let Some(cpus) = &limits.cpus {
                    let (threads, rule) = rounded(cpus, sizing.rounding.is_up(false));
                    add("OMP_NUM_THREADS", threads.to_string(), rule);
                }
            }
            Profile::Python => {
                if let Some(cpus) = &limits.cpus {
                    let (threads, rule) = rounded(cpus, sizing.rounding.is_up(true));
                    add("PYTHON_CPU_COUNT", threads.to_string(), rule);
                }
            }
            Profile::Java | Profile::Node | Profile::Web | Profile::Julia | Profile::Malloc => {}
        }
    }
    exports
}

/// Go's own rule since 1.25: at least 2, so that its garbage collector has a
/// CPU to run on beside the program, but never more than it may run on.
fn gomaxprocs(cpus: &Limit<f64>, affinity: Option<u32>, rounding: Rounding) -> (u64, String) {
    if rounding != Rounding::Auto {
        return rounded(cpus, rounding.is_up(true));
    }
    let threads = (cpus.value.ceil() as u64).max(2);
    let limit = format!("{} CPUs from {}", cpus.value, cpus.source);
    match affinity.map(u64::from) {
        Some(affinity) if affinity < threads => {
            (affinity.max(1), format!("all of its affinity; {limit}"))
        }
        _ => (threads, format!("ceil, at least 2; {limit}")),
    }
}

fn rounded(cpus: &Limit<f64>, is_up: bool) -> (u64, String) {
    let (rule, whole) =
        if is_up { ("ceil", cpus.value.ceil()) } else { ("floor", cpus.value.floor()) };
    let why = format!("{rule}, at least 1; {} CPUs from {}", cpus.value, cpus.source);
    ((whole as u64).max(1), why)
}

/// Go reads a signed number and takes 0 for a limit of nothing.
fn gomemlimit(memory: &Limit<u64>, ratio: f64) -> (u64, String) {
    let share = (memory.value as f64 * ratio) as u64;
    let rule = format!("{ratio} of {} bytes from {}", memory.value, memory.source);
    (share.clamp(1, i64::MAX as u64), rule)
}

#[cfg(test)]
mod tests;
