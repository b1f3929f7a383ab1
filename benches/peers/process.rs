//! A subject as process 1 of a pid namespace of its own, with its own /proc.
//!
//! The namespaces are made before the clock is started and outlive the
//! subject: only what it does itself is timed.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::subject::Subject;

/// Nanoseconds of the monotonic clock.
pub(crate) type Nanos = u64;

/// How long a subject may take for anything before it has misbehaved.
const PATIENCE_MS: u16 = 10_000;
/// Room for the log of a whole burst of signals, so that no writer ever waits.
const PIPE_BYTES: i32 = 1 << 20;

pub(crate) fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives across the call, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    nanos(time.tv_sec as u64, time.tv_nsec as u64)
}

pub(crate) fn nanos(seconds: u64, nanoseconds: u64) -> Nanos {
    seconds * 1_000_000_000 + nanoseconds
}

/// A subject that has been started. Dropping it kills it, and with it all of
/// its namespace.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    /// As the harness sees it.
    pub(crate) pid: Pid,
    pub(crate) stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
    /// What was read of stderr so far.
    pub(crate) log: Vec<u8>,
    has_ended: bool,
    /// Keeps the mounts: taking them down would count as the subject's exit.
    _mounts: File,
}

impl Running {
    /// Starts the subject with the program as its child.
    pub(crate) fn start(subject: &Subject, program: &Path) -> Result<Self, Box<dyn Error>> {
        let command = subject.command(program)?;
        let environment = subject.environment()?;
        let (child_stdin, stdin) = io::pipe()?;
        let (stdout, child_stdout) = io::pipe()?;
        let (stderr, child_stderr) = io::pipe()?;
        fcntl(&stderr, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES))?;
        fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (gate_of_child, mut gate) = io::pipe()?;
        let (mut is_ready, tell_ready) = io::pipe()?;
        let argv = pointers(&command);
        let envp = pointers(&environment);
        let half = ChildHalf {
            argv: &argv,
            envp: &envp,
            standard: [child_stdin.as_raw_fd(), child_stdout.as_raw_fd(), child_stderr.as_raw_fd()],
            tell_ready: tell_ready.as_raw_fd(),
            gate: gate_of_child.as_raw_fd(),
            exec_time: exec_time()?,
        };
        half.exec_time.store(0, Ordering::Relaxed);
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::SIGCHLD;
        // SAFETY: as fork: no memory is shared, and the harness has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: this is the new process.
            unsafe { half.run() }
        }
        if pid < 0 {
            let error = io::Error::last_os_error();
            return Err(format!("cannot make a pid namespace: {error}\nhint: run as root").into());
        }
        drop(tell_ready);
        is_ready
            .read_exact(&mut [0])
            .map_err(|_| format!("cannot prepare a namespace for {}", subject.name))?;
        let mounts = File::open(format!("/proc/{pid}/ns/mnt"))?;
        // Before the clock is started: nothing else is done meanwhile.
        drop((child_stdin, child_stdout, child_stderr, gate_of_child));
        gate.write_all(&[0])?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        Ok(Self {
            name: subject.name,
            pid,
            stdin,
            stdout,
            stderr,
            log: Vec::new(),
            has_ended: false,
            _mounts: mounts,
        })
    }

    /// When the harness's clone became the subject.
    pub(crate) fn exec_time(&self) -> Result<Nanos, Box<dyn Error>> {
        Ok(exec_time()?.load(Ordering::Relaxed))
    }

    /// Reads what the child writes next, whole.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<(), Box<dyn Error>> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let mut ready = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            let count = match poll(&mut ready, PollTimeout::from(PATIENCE_MS))? {
                0 => 0,
                _ => self.stdout.read(rest)?,
            };
            if count == 0 {
                self.drain();
                let log = String::from_utf8_lossy(&self.log);
                return Err(
                    format!("{}: nothing more came from the child\n{log}", self.name).into()
                );
            }
            rest = rest.split_at_mut(count).1;
        }
        Ok(())
    }

    /// The next so many words that the child writes.
    pub(crate) fn read_words<const N: usize>(&mut self) -> Result<[u64; N], Box<dyn Error>> {
        let mut words = [0; N];
        for word in &mut words {
            let mut bytes = [0; size_of::<u64>()];
            self.read(&mut bytes)?;
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(words)
    }

    /// Takes what is in the pipe of stderr, as whoever collects logs does.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0; 1 << 16];
        while let Ok(count @ 1..) = self.stderr.read(&mut buffer) {
            self.log.extend(buffer.iter().take(count));
        }
    }

    pub(crate) fn send(&self, signal: Signal) -> Result<(), Box<dyn Error>> {
        Ok(kill(self.pid, signal)?)
    }

    /// Ends the child with SIGTERM and expects the subject to say so.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        if self.is_init() {
            self.send(Signal::SIGTERM)?;
            self.expect_exit(128 + libc::SIGTERM)?;
        }
        Ok(())
    }

    fn is_init(&self) -> bool {
        // `direct`: a process 1 without a handler does not get SIGTERM.
        self.name != "direct"
    }

    /// Waits for the subject's end.
    pub(crate) fn expect_exit(&mut self, code: i32) -> Result<(), Box<dyn Error>> {
        let status = waitpid(self.pid, None)?;
        self.has_ended = true;
        if status == WaitStatus::Exited(self.pid, code) {
            return Ok(());
        }
        self.drain();
        let log = String::from_utf8_lossy(&self.log);
        Err(format!("{}: ended as {status:?}, not with {code}\n{log}", self.name).into())
    }

    /// CPU time of the subject itself, all threads, without its children.
    pub(crate) fn cpu_time(&self) -> Result<Nanos, Box<dyn Error>> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both results live across the calls.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.pid.as_raw(), &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        if failed {
            return Err(format!("{}: it has gone, and its CPU time with it", self.name).into());
        }
        Ok(nanos(time.tv_sec as u64, time.tv_nsec as u64))
    }

    /// A file below its directory in /proc.
    pub(crate) fn proc(&self, file: &str) -> Result<String, Box<dyn Error>> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.pid))?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// One word in memory that is shared with the processes made later.
fn exec_time() -> io::Result<&'static AtomicU64> {
    static WORD: std::sync::OnceLock<&'static AtomicU64> = std::sync::OnceLock::new();
    if let Some(word) = WORD.get() {
        return Ok(word);
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), 8, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is zeroed, aligned, large enough and never unmapped.
    let word = unsafe { &*page.cast::<AtomicU64>() };
    Ok(WORD.get_or_init(|| word))
}

/// All that the new process needs until it is the subject.
struct ChildHalf<'a> {
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    standard: [RawFd; 3],
    tell_ready: RawFd,
    gate: RawFd,
    exec_time: &'static AtomicU64,
}

impl ChildHalf<'_> {
    /// Mounts /proc, waits for the harness and becomes the subject.
    ///
    /// # Safety
    /// Only for a new process: this one is replaced or ended.
    unsafe fn run(&self) -> ! {
        let mut byte = 0_u8;
        let none = ptr::null();
        // SAFETY: system calls on live arguments; a failure is seen by the
        // harness as a namespace that never is ready, or by the exit code.
        unsafe {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let proc = c"proc".as_ptr();
            let has_proc = libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
                && libc::mount(proc, c"/proc".as_ptr(), proc, 0, none.cast()) == 0;
            if has_proc {
                for (standard, fd) in (0..).zip(self.standard) {
                    libc::dup2(fd, standard);
                }
                libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
                libc::write(self.tell_ready, (&raw const byte).cast(), 1);
                libc::read(self.gate, (&raw mut byte).cast(), 1);
                self.exec_time.store(now(), Ordering::Relaxed);
                if let Some(file) = self.argv.first() {
                    libc::execve(*file, self.argv.as_ptr(), self.envp.as_ptr());
                }
            }
            libc::_exit(99)
        }
    }
}
