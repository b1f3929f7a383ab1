//! What the cgroups allow: the text of the kernel's files in, `Limits` out.

/// The effective limits: the smallest that holds at any visible level.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Which cgroup versions are mounted.
    pub(crate) cgroup: CgroupKind,
    pub(crate) cpus: Option<Limit<f64>>,
    pub(crate) memory_bytes: Option<Limit<u64>>,
    pub(crate) pids: Option<Limit<u64>>,
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
