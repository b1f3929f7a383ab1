//! Starts the child exactly as castoff was started but for what the settings say
//! of its user and directory, and the hooks, which differ in their standard
//! descriptors and stay castoff's user.
//!
//! Own code instead of `std::process`, which resets SIGPIPE, ignores signals
//! 32 and 33 and knows no foreground group. Nothing here waits for a process.
#![expect(unsafe_code, reason = "the half of the spawn that runs in the child")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::environment;
use super::eyes::{is_dumpable, remain_dumpable};
use super::oom_score::OomScore;
use super::signals::{set_mask, with_all_blocked};
use super::terminal::Terminal;
use crate::policy::signal::Signal;
use crate::policy::user::Credentials;

/// Where programs are looked for without a PATH: what container runtimes set.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The child's half needs a few calls deep of stack, `execve` none of ours.
const STACK_BYTES: usize = 32 * 1024;

/// What the child is to be.
pub(crate) struct Launch<'a> {
    /// The command and its arguments; the first is looked up in PATH.
    pub(crate) command: &'a [CString],
    pub(crate) environment: &'a [CString],
    /// The signal mask to start with.
    pub(crate) mask: u64,
    /// Signals whose disposition castoff has changed, and whether each had been
    /// ignored before.
    pub(crate) dispositions: &'a [(Signal, bool)],
    /// The terminal whose foreground the child becomes.
    pub(crate) terminal: Option<&'a Terminal>,
    pub(crate) stdio: Stdio<'a>,
    /// Further ones, and the numbers that they get, in place of what castoff was
    /// given there: from 3 on, each number once. As `stdio`, they need not stay
    /// open here.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Whom it becomes; `None`: it stays castoff's user.
    pub(crate) user: Option<&'a Credentials>,
    /// Where it starts, entered as that user; `None`: where castoff was started.
    pub(crate) directory: Option<&'a CStr>,
    pub(crate) oom_score: Option<&'a OomScore>,
}

/// What a process gets as its descriptors 0, 1 and 2; `None`: those of castoff.
/// They need not stay open here once it has been started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stdio<'a> {
    pub(crate) input: Option<BorrowedFd<'a>>,
    pub(crate) output: Option<BorrowedFd<'a>>,
    pub(crate) error: Option<BorrowedFd<'a>>,
}

impl<'a> Stdio<'a> {
    /// None of castoff's, and one for both outputs.
    pub(crate) fn apart(input: BorrowedFd<'a>, output: BorrowedFd<'a>) -> Self {
        Self { input: Some(input), output: Some(output), error: Some(output) }
    }
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// No process could be made.
    #[error("cannot make a process: {}{}", .0.desc(), clone_hint(*.0))]
    Clone(Errno),
    /// `execve` refused, with what the shell calls "not found".
    #[error("{}", .0.error.desc())]
    NotFound(Refused),
    /// It refused for another reason, or the descriptors were not to be had.
    #[error("{}", .0.error.desc())]
    NotExecutable(Refused),
    /// It could not become what it was to be before the program.
    #[error("cannot {step}: {}{}", .refused.error.desc(), step_hint(.refused.error))]
    NotPrepared { step: String, refused: Refused },
}

/// A process that did not become the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    error: Errno,
    pid: Pid,
}

impl SpawnError {
    /// The process that ended in place of the program. The reaper will meet it
    /// and take it for an orphan, unless it is told.
    pub(crate) fn pid(&self) -> Option<Pid> {
        match self {
            Self::Clone(_) => None,
            Self::NotFound(refused)
            | Self::NotExecutable(refused)
            | Self::NotPrepared { refused, .. } => Some(refused.pid),
        }
    }
}

fn clone_hint(error: Errno) -> &'static str {
    match error {
        // man 2 fork
        Errno::EAGAIN => "\nhint: raise the limit of processes (pids.max, RLIMIT_NPROC)",
        _ => "",
    }
}

fn step_hint(error: Errno) -> &'static str {
    match error {
        // man 2 setgroups
        Errno::EPERM => {
            "\nhint: castoff needs CAP_SETGID and CAP_SETUID, or to be started as that user"
        }
        _ => "",
    }
}

/// What comes between the clone and the exec, and may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    OomScore,
    Redirect,
    Groups,
    Group,
    User,
    Directory,
    Execute,
}

impl Step {
    /// For "cannot ..."; `None`: it is the command that is to blame.
    fn describe(self, launch: &Launch<'_>) -> Option<String> {
        let become_user = |call| {
            let user = launch.user?;
            Some(format!("become user {}:{} of CASTOFF_USER ({call})", user.uid, user.gid))
        };
        match self {
            Self::Redirect | Self::Execute => None,
            Self::OomScore => Some("restore oom_score_adj".to_owned()),
            Self::Groups => become_user("setgroups"),
            Self::Group => become_user("setresgid"),
            Self::User => become_user("setresuid"),
            Self::Directory => {
                let directory = launch.directory.map(CStr::to_string_lossy);
                let user = launch.user.map(|user| format!(" as user {}:{}", user.uid, user.gid));
                Some(format!(
                    "enter CASTOFF_WORKDIR={:?}{}",
                    directory.unwrap_or_default(),
                    user.unwrap_or_default()
                ))
            }
        }
    }
}

/// Starts the child, or a hook, in its own process group and returns once its
/// program runs: what castoff sends to it reaches the program, never the
/// half-made child. Only a key of the terminal may, in the instant before the
/// exec. Nothing of a start remains here, so there may be any number of them.
///
/// # Errors
/// See `SpawnError`. The process that failed is left to the reaper.
pub(crate) fn spawn(launch: &Launch<'_>) -> Result<Pid, SpawnError> {
    let candidates = candidates(launch);
    let mut argv: Vec<*const c_char> = launch.command.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(ptr::null());
    // Room in front, for `/bin/sh FILE` in place of the command's own name.
    let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
    shell_argv.extend(argv.iter().skip(1));
    let mut envp: Vec<*const c_char> = launch.environment.iter().map(|var| var.as_ptr()).collect();
    envp.push(ptr::null());

    let mut redirects = redirects(launch);

    let mut half = ChildHalf {
        candidates: candidates.as_slice(),
        argv: argv.as_ptr(),
        shell_argv: shell_argv.as_mut_ptr(),
        envp: envp.as_ptr(),
        mask: launch.mask,
        dispositions: launch.dispositions,
        terminal: launch.terminal.map(|terminal| terminal.as_fd().as_raw_fd()),
        redirects: redirects.as_mut_slice(),
        user: launch.user,
        directory: launch.directory,
        oom_score: launch.oom_score,
        failed: Step::Execute,
        failure: 0,
    };
    let is_dumpable = launch.user.is_some() && is_dumpable();
    // Not zeroed: that would touch, and keep, pages that nobody needs.
    let mut stack = Vec::<u8>::with_capacity(STACK_BYTES);
    // The stack grows down from its end.
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let top = top.map_addr(|address| address & !15);
    // With CLONE_VFORK the kernel holds castoff here until the child has called
    // execve or ended: what it borrows lives that long, and no signal can be
    // forwarded to it too early. With CLONE_VM nothing is copied.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // Blocked, for until it resets them the child has castoff's own handlers.
    let pid = with_all_blocked(|| {
        let argument = (&raw mut half).cast::<c_void>();
        // SAFETY: as above; `child_half` allocates nothing and takes no lock.
        unsafe { libc::clone(child_half, top.cast(), flags, argument) }
    });
    if is_dumpable {
        remain_dumpable();
    }
    let pid = Pid::from_raw(Errno::result(pid).map_err(SpawnError::Clone)?);
    let refused = |error| Refused { error: Errno::from_raw(error), pid };
    // SAFETY: `half` lives; volatile, for the child has written it meanwhile.
    let (failure, failed) = unsafe {
        (ptr::read_volatile(&raw const half.failure), ptr::read_volatile(&raw const half.failed))
    };
    if failure != 0
        && let Some(step) = failed.describe(launch)
    {
        return Err(SpawnError::NotPrepared { step, refused: refused(failure) });
    }
    match failure {
        0 => Ok(pid),
        error @ (libc::ENOENT | libc::ENOTDIR) => Err(SpawnError::NotFound(refused(error))),
        error => Err(SpawnError::NotExecutable(refused(error))),
    }
}

/// What is to become which number.
fn redirects(launch: &Launch<'_>) -> Vec<(RawFd, RawFd)> {
    let Stdio { input, output, error } = launch.stdio;
    let stdio = [(input, 0), (output, 1), (error, 2)];
    let stdio = stdio.into_iter().filter_map(|(from, to)| Some((from?, to)));
    let all = stdio.chain(launch.descriptors.iter().copied());
    all.map(|(from, to)| (from.as_raw_fd(), to)).collect()
}

/// The files that `execvp` would try, in its order.
fn candidates(launch: &Launch<'_>) -> Vec<CString> {
    let Some(name) = launch.command.first() else { return Vec::new() };
    files_of(name, environment::value_of(launch.environment, "PATH"))
}

/// The files that a command's name may stand for with that PATH, in the order in
/// which they are tried.
pub(super) fn files_of(name: &CStr, path: Option<&[u8]>) -> Vec<CString> {
    if name.is_empty() || name.to_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    let in_directory = |directory: &[u8]| {
        // An empty element of PATH is the working directory.
        let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
        CString::new([directory, b"/", name.to_bytes()].concat()).ok()
    };
    path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':').filter_map(in_directory).collect()
}

/// All that the child's half needs, made ready before: it shares castoff's
/// memory and may not allocate.
struct ChildHalf<'a> {
    candidates: &'a [CString],
    argv: *const *const c_char,
    shell_argv: *mut *const c_char,
    envp: *const *const c_char,
    mask: u64,
    dispositions: &'a [(Signal, bool)],
    terminal: Option<RawFd>,
    /// From which number to which.
    redirects: &'a mut [(RawFd, RawFd)],
    user: Option<&'a Credentials>,
    directory: Option<&'a CStr>,
    oom_score: Option<&'a OomScore>,
    failed: Step,
    failure: c_int,
}

/// Runs in the child, in castoff's memory, until `execve` or `_exit`.
extern "C" fn child_half(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a ChildHalf and is held until this has ended.
    let half = unsafe { &mut *argument.cast::<ChildHalf<'_>>() };
    // SAFETY: system calls on valid arguments. Every signal is blocked, so that
    // SIGTTOU cannot stop the change of the foreground and no handler of castoff's
    // runs in the child.
    unsafe {
        libc::setpgid(0, 0);
        if let Some(terminal) = half.terminal {
            libc::tcsetpgrp(terminal, libc::getpid());
        }
        for (signal, was_ignored) in half.dispositions {
            let handler = if *was_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
            libc::signal(signal.number(), handler);
        }
    }
    let (failed, failure) = match prepare(half) {
        Ok(()) => (Step::Execute, execute(half)),
        Err((step, error)) => (step, error as c_int),
    };
    // SAFETY: plain writes to memory that castoff reads after this has ended.
    unsafe {
        ptr::write_volatile(&raw mut half.failed, failed);
        ptr::write_volatile(&raw mut half.failure, failure);
    }
    // SAFETY: ends the child without castoff's exit handlers.
    unsafe { libc::_exit(127) }
}

/// Makes this process what the child is to be. As castoff's user first: only
/// root may lower `oom_score_adj`. The directory comes last: what its user may
/// not enter, the child is not to find itself in.
fn prepare(half: &mut ChildHalf<'_>) -> Result<(), (Step, Errno)> {
    if let Some(oom_score) = half.oom_score {
        oom_score.write_own().map_err(|error| (Step::OomScore, error))?;
    }
    redirect(half.redirects).map_err(|error| (Step::Redirect, error))?;
    if let Some(user) = half.user {
        become_user(user)?;
    }
    if let Some(directory) = half.directory {
        // SAFETY: a path that ends with NUL.
        let entered = unsafe { libc::chdir(directory.as_ptr()) };
        Errno::result(entered).map_err(|error| (Step::Directory, error))?;
    }
    Ok(())
}

/// The kernel's calls themselves: those of the C library make every thread of a
/// process follow (`man 7 nptl`), and what they know of threads is castoff's.
/// Groups first, which a user without privileges may not change. The kernel
/// takes the capabilities away with the user (`man 7 capabilities`).
fn become_user(user: &Credentials) -> Result<(), (Step, Errno)> {
    let Credentials { uid, gid, groups, .. } = user;
    // SAFETY: numbers, and an array of the length that is given.
    unsafe {
        Errno::result(libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr()))
            .map_err(|error| (Step::Groups, error))?;
        Errno::result(libc::syscall(SYS_SETRESGID, *gid, *gid, *gid))
            .map_err(|error| (Step::Group, error))?;
        Errno::result(libc::syscall(SYS_SETRESUID, *uid, *uid, *uid))
            .map_err(|error| (Step::User, error))?;
    }
    Ok(())
}

// The oldest machines have calls for numbers of 16 bits besides.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{
    SYS_setgroups as SYS_SETGROUPS, SYS_setresgid as SYS_SETRESGID, SYS_setresuid as SYS_SETRESUID,
};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{
    SYS_setgroups32 as SYS_SETGROUPS, SYS_setresgid32 as SYS_SETRESGID,
    SYS_setresuid32 as SYS_SETRESUID,
};

/// Makes each first one the second. By way of copies on numbers that are not
/// wanted: it may be on one of those itself, to be overwritten too early, or on
/// its own already, where `dup2` would leave it closed at exec.
fn redirect(pairs: &mut [(RawFd, RawFd)]) -> Result<(), Errno> {
    // SAFETY: system calls on numbers, in a table of descriptors that is not
    // castoff's; nothing else runs here that could own one.
    unsafe {
        for nth in 0..pairs.len() {
            let mut copy = pairs.get(nth).map_or(0, |(from, _)| *from);
            let mut lowest = 3;
            loop {
                copy = Errno::result(libc::fcntl(copy, libc::F_DUPFD_CLOEXEC, lowest))?;
                // A copy that takes a wanted number, which was free until now,
                // is left there: it will be overwritten.
                if pairs.iter().all(|(_, to)| copy != *to) {
                    break;
                }
                lowest = copy + 1;
            }
            if let Some((from, _)) = pairs.get_mut(nth) {
                *from = copy;
            }
        }
        for (from, to) in pairs {
            Errno::result(libc::dup2(*from, *to))?;
        }
    }
    Ok(())
}

/// `execvp` without an allocation: the candidates in turn, past those that are
/// not there; a text file without `#!` by the shell. Returns the error only.
fn execute(half: &mut ChildHalf<'_>) -> c_int {
    let mut failure = libc::ENOENT;
    for file in half.candidates {
        // SAFETY: a path that ends with NUL.
        let exists = unsafe { libc::access(file.as_ptr(), libc::F_OK) } == 0;
        let mut error = Errno::last_raw();
        if exists {
            // Only now: most of a PATH is passed over while no signal can come
            // between. SIGTSTP would hold castoff here until somebody continues
            // the child.
            set_mask(half.mask);
            // SAFETY: every pointer is to a live array that ends with null.
            unsafe { libc::execve(file.as_ptr(), half.argv, half.envp) };
            error = Errno::last_raw();
        }
        if error == libc::ENOEXEC && !is_binary(file) {
            error = execute_by_shell(half, file);
        }
        match error {
            libc::EACCES => failure = error,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            other => return other,
        }
    }
    failure
}

/// Whether the first line has a NUL, which tells bash that a file is no script
/// either. An image for another machine is to fail as such: a shell would
/// complain of its syntax, or even run a line of it.
fn is_binary(file: &CStr) -> bool {
    let mut bytes = [0_u8; 128];
    // SAFETY: a path, and a buffer that is writable for the size that is given.
    let count = unsafe {
        let fd = libc::open(file.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len())
    };
    // What cannot be read is left to the shell, which will say so.
    let head = bytes.get(..usize::try_from(count).unwrap_or_default()).unwrap_or_default();
    head.split(|byte| *byte == b'\n').next().is_some_and(|line| line.contains(&0))
}

fn execute_by_shell(half: &ChildHalf<'_>, file: &CStr) -> c_int {
    // SAFETY: the array has room for the file at 1 and ends with null.
    unsafe {
        *half.shell_argv.add(1) = file.as_ptr();
        libc::execve(c"/bin/sh".as_ptr(), half.shell_argv, half.envp);
    }
    match Errno::last_raw() {
        // The file was found: what is missing is the shell.
        libc::ENOENT => libc::ENOEXEC,
        other => other,
    }
}

/// The arguments as C strings.
///
/// # Panics
/// Never: the kernel passes no argument with a NUL in it; were there one, the
/// argument would end there.
pub(crate) fn c_string(text: &OsStr) -> CString {
    let bytes = text.as_bytes();
    let until_nul = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    CString::new(until_nul).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
