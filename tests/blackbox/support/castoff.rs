//! Starting castoff: as PID 1 of a pid namespace of its own, or as a subreaper
//! among the other processes of this machine.
#![expect(unsafe_code, reason = "what happens between fork and exec")]

use std::ffi::{CString, OsStr, OsString};
use std::io::{PipeReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::{fs, io, ptr};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid, Uid, fork, getgid, getpid, getuid, setsid};
use serde_json::Value;

use super::lines::Lines;
use super::probe::{self, Answer};
use super::process;
use super::terminal::Terminal;
use super::wait_until::{PATIENCE, wait_until};

/// Which process castoff is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pid1,
    Subreaper,
}

/// castoff, about to be started. Its environment is empty but for PATH, and its
/// endpoints are on a port of the kernel's choice.
pub(crate) struct Castoff {
    place: Place,
    command: Command,
    last: Vec<Box<dyn FnMut() -> io::Result<()> + Send + Sync>>,
    signal_at_exec: Option<i32>,
}

/// How castoff ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl Castoff {
    pub(crate) fn new(place: Place) -> Self {
        Self::instead(place, env!("CARGO_BIN_EXE_castoff"))
    }

    /// Another program in castoff's place, to compare with.
    pub(crate) fn instead(place: Place, program: &str) -> Self {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("CASTOFF_HEALTH_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { place, command, last: Vec::new(), signal_at_exec: None }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// castoff's own arguments, and the child's after them.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// `-- PROGRAM ARG...`
    pub(crate) fn child<A: AsRef<OsStr>>(
        self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.args(["--", program]).args(args)
    }

    /// `-- /bin/sh -c SCRIPT`
    pub(crate) fn script(self, script: &str) -> Self {
        self.child("/bin/sh", ["-c", script])
    }

    /// Anything else that std can set.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// What the process itself does right before the exec, in the place that
    /// castoff will have: system calls only.
    pub(crate) fn last(
        mut self,
        act: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.last.push(Box::new(act));
        self
    }

    /// The program and its arguments, for an exec of one's own in `last`.
    pub(crate) fn command_line(&self) -> (CString, Vec<CString>) {
        let c_string = |text: &OsStr| CString::new(text.as_bytes()).expect("no NUL");
        let program = self.command.get_program();
        let words = [program].into_iter().chain(self.command.get_args());
        (c_string(program), words.map(c_string).collect())
    }

    /// On that terminal, as the leader of its session; the log stays a pipe.
    pub(crate) fn on(self, terminal: &Terminal) -> Self {
        let (stdin, stdout) = (terminal.other_end(), terminal.other_end());
        self.with(|command| {
            command.stdin(stdin).stdout(stdout);
        })
        .last(become_session_leader)
    }

    /// Sends castoff this signal at the first moment at which it is castoff.
    pub(crate) fn signal_at_exec(mut self, number: i32) -> Self {
        self.signal_at_exec = Some(number);
        self
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let (pid_reader, pid_writer) = io::pipe().expect("a pipe");
        let (place, tell_pid) = (self.place, OwnedFd::from(pid_writer));
        // SAFETY: between fork and exec there is one thread, and only system
        // calls and writes from the stack are made.
        unsafe {
            self.command.pre_exec(move || match place {
                Place::Pid1 => become_pid_1(&tell_pid),
                Place::Subreaper => write_pid(&tell_pid, getpid()),
            });
            self.command.pre_exec(reset_dispositions);
            for act in self.last {
                self.command.pre_exec(act);
            }
        }
        let at_exec = self.signal_at_exec;
        let watcher = std::thread::spawn(move || {
            let pid = read_pid(pid_reader);
            if let Some(number) = at_exec {
                wait_for_exec(pid);
                // SAFETY: takes two numbers; nobody has reaped castoff so early.
                unsafe { libc::kill(pid, number) };
            }
            pid
        });
        let mut child = self.command.spawn().expect("castoff starts");
        drop(self.command);
        let pid = watcher.join().expect("castoff's pid");
        let stdout = child.stdout.take().map(|out| Lines::of("stdout", out));
        let stderr = child.stderr.take().map(|err| Lines::of("stderr", err));
        Running { pid, stdout, stderr, ended: ended(child), result: None }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub(crate) fn run(self) -> Running {
        let mut running = self.start();
        running.wait();
        running
    }
}

/// Leaves the process that std has forked as a parent of the namespace's PID 1,
/// which goes on to the exec. It passes the end of PID 1 on.
fn become_pid_1(tell_pid: &OwnedFd) -> io::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let mut spaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if !uid.is_root() {
        spaces |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(spaces)?;
    if uid != Uid::from_raw(0) {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    // SAFETY: there is one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            let _ = write_pid(tell_pid, child);
            // Whatever castoff closes or holds open, this process must not.
            // SAFETY: nothing of this process is used after it.
            unsafe { libc::close_range(0, u32::MAX, 0) };
            let mut status = 0;
            // SAFETY: ends this process as PID 1 ended, without exit handlers.
            unsafe {
                libc::waitpid(child.as_raw(), &raw mut status, 0);
                if libc::WIFSIGNALED(status) {
                    libc::kill(libc::getpid(), libc::WTERMSIG(status));
                }
                libc::_exit(libc::WEXITSTATUS(status));
            }
        }
        ForkResult::Child => {
            let nothing: Option<&str> = None;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing)?;
            Ok(())
        }
    }
}

/// Nothing that is ignored here is ignored in a container: the shell of a job
/// in the background, or the C library's spawn (32, 33), have their own.
fn reset_dispositions() -> io::Result<()> {
    for number in 1..=64 {
        // All zeroes is SIG_DFL in the kernel's own structure; the C library's
        // function refuses signals 32 and 33.
        let default = [0_u64; 4];
        let (old, size) = (ptr::null_mut::<u64>(), size_of::<u64>());
        // SAFETY: the structure lives across the call; nothing is written.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), old, size) };
    }
    Ok(())
}

/// Makes the terminal that is standard input the session's own.
fn become_session_leader() -> io::Result<()> {
    setsid()?;
    // SAFETY: the request takes a number.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// Until the process runs another program than this one. In a spin: a test
/// wants to be there before castoff's first instruction.
fn wait_for_exec(pid: i32) {
    let (own, exe) = (fs::read_link("/proc/self/exe").ok(), format!("/proc/{pid}/exe"));
    while fs::read_link(&exe).ok() == own {
        std::hint::spin_loop();
    }
}

fn write_pid(writer: &OwnedFd, pid: Pid) -> io::Result<()> {
    fs::File::from(writer.try_clone()?).write_all(&pid.as_raw().to_ne_bytes())
}

fn read_pid(mut reader: PipeReader) -> i32 {
    let mut pid = [0; size_of::<i32>()];
    reader.read_exact(&mut pid).expect("the namespace's PID 1 was made");
    i32::from_ne_bytes(pid)
}

/// The one who waits for castoff, in a thread of its own.
fn ended(mut child: Child) -> Receiver<Ended> {
    use std::os::unix::process::ExitStatusExt;
    let (tell, ended) = channel();
    std::thread::spawn(move || {
        let status = child.wait().expect("it is our child");
        let _ = tell.send(match status.signal() {
            Some(signal) => Ended::Signal(signal),
            None => Ended::Code(status.code().unwrap_or_default()),
        });
    });
    ended
}

/// castoff, started. Dropping it kills it, and with it a namespace of its own.
pub(crate) struct Running {
    /// As this test sees it, also when castoff sees itself as 1.
    pub(crate) pid: i32,
    stdout: Option<Lines>,
    stderr: Option<Lines>,
    ended: Receiver<Ended>,
    result: Option<Ended>,
}

impl Running {
    /// What the child writes to its standard output.
    #[track_caller]
    pub(crate) fn stdout(&self) -> &Lines {
        self.stdout.as_ref().expect("stdout is a pipe")
    }

    /// castoff's log, and what the child writes to its standard error.
    #[track_caller]
    pub(crate) fn log(&self) -> &Lines {
        self.stderr.as_ref().expect("stderr is a pipe")
    }

    /// castoff's events of that name so far.
    pub(crate) fn events_so_far(&self, name: &str) -> Vec<Value> {
        let log = self.log().so_far();
        let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }

    /// The one after `seen` of them.
    #[track_caller]
    pub(crate) fn next_event(&self, name: &str, seen: usize) -> Value {
        wait_until(&format!("{name} more than {seen} times"), || {
            self.events_so_far(name).into_iter().nth(seen)
        })
    }

    /// Sends castoff a signal, from outside of its namespace if it has one.
    #[track_caller]
    pub(crate) fn signal(&self, number: i32) {
        // SAFETY: takes two numbers; castoff has not been reaped.
        let sent = unsafe { libc::kill(self.pid, number) };
        assert_eq!(sent, 0, "signal {number}: {}", io::Error::last_os_error());
    }

    /// The pid of castoff's only child as this test sees it, once there is one.
    #[track_caller]
    pub(crate) fn child(&self) -> i32 {
        wait_until("castoff has a child", || process::children(self.pid).first().copied())
    }

    /// Waits for castoff's end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Ended {
        if self.result.is_none() {
            self.result = self.ended.recv_timeout(PATIENCE).ok();
        }
        let log = || self.stderr.as_ref().map(|log| log.wait_for("", |line| Some(line.to_owned())));
        self.result.unwrap_or_else(|| panic!("castoff never ends; its log begins {:?}", log()))
    }

    /// Waits that long for castoff's end.
    pub(crate) fn ended_within(&mut self, patience: std::time::Duration) -> Option<Ended> {
        self.result = self.result.or_else(|| self.ended.recv_timeout(patience).ok());
        self.result
    }

    /// Waits for its end and gives its code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        match self.wait() {
            Ended::Code(code) => code,
            Ended::Signal(signal) => panic!("signal {signal} ended castoff"),
        }
    }

    /// The address of its endpoints.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        let started = self.log().wait_for_event("castoff_started");
        let address = started["listen"].as_str().expect("it listens");
        address.parse().expect("an address")
    }

    /// Asks its endpoints.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        probe::get(self.address(), target)
    }

    /// Waits until the child's program runs and castoff says that it serves.
    #[track_caller]
    pub(crate) fn until_serving(&self) -> &Self {
        self.until_phase("serving");
        self
    }

    /// Waits until castoff says that it has entered that phase.
    #[track_caller]
    pub(crate) fn until_phase(&self, phase: &str) {
        let to = format!("\"to\":\"{phase}\"");
        self.log().wait_for(&to, |line| line.contains(&to).then_some(()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.result.is_none() && self.ended.try_recv().is_err() {
            // Nobody would end them once castoff has gone.
            let left = process::descendants(self.pid);
            for pid in [self.pid].into_iter().chain(left) {
                // SAFETY: takes two numbers; castoff has not been reaped, for the
                // one who waits has not said so.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
}
