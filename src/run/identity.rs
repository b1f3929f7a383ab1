//! Whom the child runs as, where, with which variables from files, and what that
//! needs before it is started.
//!
//! Nothing of it is looked up unless a setting asks for it. What is wrong with a
//! setting is told now; what the kernel has against it, when the child starts.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::Config;
use crate::policy::user::{Credentials, Identity, UserSpec};
use crate::supervisor::{Environment, Switch};
use crate::system::{child, subreaper, users};

/// Whom the child becomes; `None`: it stays who castoff is.
///
/// # Errors
/// The image knows no user, or group, of that name.
pub(super) fn switch(config: &Config) -> Result<Option<Switch>, Failure> {
    let Some(user) = &config.user else { return Ok(None) };
    let [passwd, group] = users::files();
    let found = user.value.resolve(&passwd, &group);
    let child = found.map_err(|stranger| Failure::User(user.name.clone(), stranger))?;
    // Whatever further groups the platform has given such a castoff are the
    // child's as well: to take them away would need a privilege.
    let group_wanted = user.value.group.as_ref().map(|_| child.gid);
    if users::is_already(child.uid, group_wanted) {
        return Ok(None);
    }
    let own = UserSpec { user: Identity::Id(subreaper::own_user()), group: None };
    // A number is never a stranger.
    let Ok(own) = own.resolve(&passwd, &group) else { return Ok(None) };
    Ok(Some(Switch { own, child }))
}

/// The directory that everything castoff starts begins in.
///
/// # Errors
/// There is none. One that castoff itself may not look at is the child's to enter.
pub(super) fn directory(config: &Config) -> Result<Option<CString>, Failure> {
    let Some(workdir) = &config.workdir else { return Ok(None) };
    let failure = |error| Failure::Workdir(workdir.name.clone(), error);
    if !is_directory(&workdir.value).map_err(failure)? {
        return Err(failure(io::ErrorKind::NotADirectory.into()));
    }
    Ok(Some(child::c_string(workdir.value.as_os_str())))
}

fn is_directory(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error),
    }
}

/// Credentials for the launcher, once what the user needs is its own.
pub(super) fn prepare(switch: Option<&Switch>) -> Option<Credentials> {
    let child = &switch?.child;
    users::give_streams(child.uid);
    Some(child.clone())
}

/// Reads the directories of variables.
///
/// # Errors
/// One cannot be used.
pub(super) fn read_directories(
    config: &Config,
    environment: &mut Environment,
) -> Result<(), Failure> {
    let Some(directories) = &config.env_dirs else { return Ok(()) };
    let failure = |error| Failure::EnvDir(directories.name.clone(), error);
    environment.read_files().map_err(failure)
}

pub(super) fn directories(config: &Config) -> Vec<PathBuf> {
    config.env_dirs.as_ref().map(|directories| directories.value.clone()).unwrap_or_default()
}
