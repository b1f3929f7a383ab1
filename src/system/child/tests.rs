//! Processes are really started, and each test waits for its own only.

use std::io::{self, Read};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::fstat;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::*;

const IN_OWN_PROCESS: &str = "CHILD_TEST_IN_OWN_PROCESS";

/// Starts a script by `/bin/sh` as castoff starts a hook.
pub(crate) fn spawn_script(script: &str, stdio: Stdio<'_>) -> Pid {
    let command = [c"/bin/sh".into(), c"-c".into(), CString::new(script).unwrap()];
    spawn(&launch(&command, Some(stdio))).unwrap()
}

fn launch<'a>(command: &'a [CString], stdio: Option<Stdio<'a>>) -> Launch<'a> {
    Launch { command, environment: &[], mask: 0, dispositions: &[], terminal: None, stdio }
}

fn code_of(pid: Pid) -> i32 {
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_streams_go_to_the_output_and_the_input_is_read() {
    let (input, mut to_input) = io::pipe().unwrap();
    let (mut from_output, output) = io::pipe().unwrap();
    let script = format!(
        "read line; echo out $line; echo err >&2; test -e /proc/self/fd/{}",
        output.as_raw_fd()
    );
    let stdio = Stdio { input: input.as_fd(), output: output.as_fd() };
    let pid = spawn_script(&script, stdio);
    drop(output);
    io::Write::write_all(&mut to_input, b"in\n").unwrap();
    let mut text = String::new();
    from_output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out in\nerr\n");
    assert_eq!(code_of(pid), 1, "a descriptor of castoff's is open in a hook");
}

#[test]
fn a_hook_leads_a_group_of_its_own() {
    let (input, to_input) = io::pipe().unwrap();
    let stdio = Stdio { input: input.as_fd(), output: to_input.as_fd() };
    let pid = spawn_script("read line", stdio);
    assert_eq!(nix::unistd::getpgid(Some(pid)), Ok(pid));
    io::Write::write_all(&mut &to_input, b"\n").unwrap();
    assert_eq!(code_of(pid), 0);
}

#[test]
fn a_process_that_did_not_become_the_program_is_named() {
    for (file, is_not_found) in [(c"/no/such/program", true), (c"/etc/passwd", false)] {
        let error = spawn(&launch(&[file.into()], None)).unwrap_err();
        assert_eq!(matches!(error, SpawnError::NotFound(_)), is_not_found, "{error}");
        assert_eq!(code_of(error.pid().unwrap()), 127);
    }
}

/// Whether `redirect` is right for descriptors of these numbers, in a
/// process that has nothing else to do.
fn redirects(input: RawFd, output: RawFd) -> bool {
    let (read, write) = io::pipe().unwrap();
    let inode = |fd: &dyn AsFd| fstat(fd.as_fd()).unwrap().st_ino;
    let (read_inode, write_inode) = (inode(&read), inode(&write));
    let file_of = |fd: RawFd| {
        // SAFETY: open or not, the number is asked about and no more.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = fcntl(fd, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
        (fstat(fd).map(|stat| stat.st_ino), flags)
    };
    // SAFETY: the child makes system calls only and does not return.
    match unsafe { fork() }.unwrap() {
        // SAFETY: nobody uses the descriptors of this process by their owners.
        ForkResult::Child => unsafe {
            libc::dup3(read.as_raw_fd(), input, libc::O_CLOEXEC);
            libc::dup3(write.as_raw_fd(), output, libc::O_CLOEXEC);
            // Of one and the same number the one that came last is there.
            let input_inode = if input == output { write_inode } else { read_inode };
            let right = [(0, input_inode), (1, write_inode), (2, write_inode)];
            let is_right = redirect(input, output).is_ok()
                && right.iter().all(|(fd, ino)| file_of(*fd) == (Ok(*ino), Ok(FdFlag::empty())));
            libc::_exit(if is_right { 0 } else { 1 });
        },
        ForkResult::Parent { child } => code_of(child) == 0,
    }
}

#[test]
fn the_descriptors_may_have_any_numbers() {
    for input in [0, 1, 2, 200] {
        for output in [0, 1, 2, 200, 201] {
            assert!(redirects(input, output), "input {input}, output {output}");
        }
    }
}

/// The part that counts what the whole process has.
#[test]
fn in_own_process() {
    if std::env::var_os(IN_OWN_PROCESS).is_none() {
        return;
    }
    let held = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        (std::fs::read_dir("/proc/self/fd").unwrap().count(), pages)
    };
    let (input, output) = io::pipe().unwrap();
    let stdio = Stdio { input: input.as_fd(), output: output.as_fd() };
    let start = || {
        assert_eq!(code_of(spawn_script("exit 3", stdio)), 3);
        let error = spawn(&launch(&[c"no-such-program".into()], Some(stdio))).unwrap_err();
        assert_eq!(code_of(error.pid().unwrap()), 127);
    };
    start();
    let (descriptors, pages) = held();
    for _ in 0..100 {
        start();
    }
    assert_eq!(held().0, descriptors);
    // Two hundred stacks would be 1,600 pages.
    assert!(held().1 < pages + 256, "{pages} pages became {}", held().1);
}

#[test]
fn a_start_leaves_nothing_behind() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "system::child::tests::in_own_process"])
        .env(IN_OWN_PROCESS, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
