//! What the limits mean to language runtimes: the choices that can be made.

/// A family of runtimes and the variables it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Go,
    OpenMp,
    Python,
}

impl Profile {
    /// Every profile; together they are the default.
    pub(crate) const ALL: [Self; 3] = [Self::Go, Self::OpenMp, Self::Python];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::OpenMp => "openmp",
            Self::Python => "python",
        }
    }
}

/// How a fraction of a CPU becomes a number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As the runtime itself does.
    Auto,
    Floor,
    Ceil,
}

/// What is exported to the child, and how it is computed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sizing {
    /// Empty: nothing is exported.
    pub(crate) profiles: Vec<Profile>,
    pub(crate) rounding: Rounding,
    /// Share of the memory limit that is given to GOMEMLIMIT; 0 < r <= 1.
    pub(crate) memory_ratio: f64,
}
