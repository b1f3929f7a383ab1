//! What is compared: castoff and the small inits that Debian packages.

use std::error::Error;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The yardstick: every ratio is to this subject, in the same round.
pub(crate) const YARDSTICK: &str = "tini";

const PATH: &str = "PATH=/usr/bin:/bin";
/// The only setting: the port is the kernel's choice, for several run at once.
const LISTEN: &str = "CASTOFF_HEALTH_LISTEN=127.0.0.1:0";
const WARN: &str = "CASTOFF_LOG_LEVEL=warn";

/// An init, or none.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// The init's executable; without one the child is itself process 1.
    pub(crate) init: Option<PathBuf>,
    settings: &'static [&'static str],
}

impl Subject {
    fn peer(name: &'static str, file: &str) -> Self {
        Self { name, init: Some(Path::new("/usr/bin").join(file)), settings: &[PATH] }
    }

    fn castoff(name: &'static str, settings: &'static [&'static str]) -> Self {
        Self { name, init: Some(env!("CARGO_BIN_EXE_castoff").into()), settings }
    }

    /// `INIT -- PROGRAM`, which all of them understand.
    pub(crate) fn command(&self, program: &Path) -> Result<Vec<CString>, Box<dyn Error>> {
        let mut words = Vec::new();
        if let Some(init) = &self.init {
            words.push(CString::new(init.as_os_str().as_bytes())?);
            words.push(c"--".to_owned());
        }
        words.push(CString::new(program.as_os_str().as_bytes())?);
        Ok(words)
    }

    pub(crate) fn environment(&self) -> Result<Vec<CString>, Box<dyn Error>> {
        self.settings.iter().map(|variable| Ok(CString::new(*variable)?)).collect()
    }
}

/// castoff as it is when nothing is set, its log included.
pub(crate) fn castoff() -> Subject {
    Subject::castoff("castoff", &[PATH, LISTEN])
}

/// castoff without the two lines that it logs by default for a signal.
pub(crate) fn castoff_warn() -> Subject {
    Subject::castoff("castoff-warn", &[PATH, LISTEN, WARN])
}

/// No init at all: the floor.
pub(crate) fn direct() -> Subject {
    Subject { name: "direct", init: None, settings: &[PATH] }
}

/// tini, tini once more (a difference not larger than between these two is
/// none) and the others.
pub(crate) fn peers() -> Vec<Subject> {
    vec![
        Subject::peer(YARDSTICK, "tini"),
        Subject::peer("tini-again", "tini"),
        Subject::peer("tini-static", "tini-static"),
        Subject::peer("dumb-init", "dumb-init"),
        Subject::peer("catatonit", "catatonit"),
    ]
}

/// `ours`, then the peers.
pub(crate) fn with_peers(ours: impl IntoIterator<Item = Subject>) -> Vec<Subject> {
    ours.into_iter().chain(peers()).collect()
}

/// # Errors
/// Names every package that has to be installed first.
pub(crate) fn check_installed() -> Result<(), Box<dyn Error>> {
    let file = |subject: &Subject| subject.init.as_ref().map(|init| init.display().to_string());
    let is_missing = |subject: &&Subject| subject.init.as_ref().is_some_and(|init| !init.exists());
    let missing: Vec<_> = peers().iter().filter(is_missing).filter_map(file).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "cannot compare with {}: not installed\nhint: apt-get install tini dumb-init catatonit",
        missing.join(", ")
    )
    .into())
}
