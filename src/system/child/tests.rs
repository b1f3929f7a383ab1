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
    spawn(&launch(&command, stdio)).unwrap()
}

fn launch<'a>(command: &'a [CString], stdio: Stdio<'a>) -> Launch<'a> {
    Launch {
        command,
        environment: &[],
        mask: 0,
        dispositions: &[],
        terminal: None,
        stdio,
        descriptors: &[],
        user: None,
        directory: None,
        oom_score: None,
    }
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
    let stdio = Stdio::apart(input.as_fd(), output.as_fd());
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
    let stdio = Stdio::apart(input.as_fd(), to_input.as_fd());
    let pid = spawn_script("read line", stdio);
    assert_eq!(nix::unistd::getpgid(Some(pid)), Ok(pid));
    io::Write::write_all(&mut &to_input, b"\n").unwrap();
    assert_eq!(code_of(pid), 0);
}

#[test]
fn a_process_that_did_not_become_the_program_is_named() {
    for (file, is_not_found) in [(c"/no/such/program", true), (c"/etc/passwd", false)] {
        let error = spawn(&launch(&[file.into()], Stdio::default())).unwrap_err();
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
            let is_right = redirect(&mut [(input, 0), (output, 1), (output, 2)]).is_ok()
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

/// The inodes of what has those numbers after the redirects, in a process that
/// has `open` pipes on those numbers and may have no descriptor from `limit` on.
fn redirected(open: &[RawFd], pairs: &[(RawFd, RawFd)], limit: u64) -> bool {
    let pipes: Vec<_> = open.iter().map(|fd| (*fd, io::pipe().unwrap().0)).collect();
    let inode = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_ino;
    let wanted: Vec<_> = pairs
        .iter()
        .map(|(from, to)| {
            let (_, pipe) = pipes.iter().find(|(fd, _)| fd == from).unwrap();
            (*to, inode(pipe.as_fd()))
        })
        .collect();
    let mut pairs = pairs.to_vec();
    // SAFETY: the child makes system calls only and does not return.
    match unsafe { fork() }.unwrap() {
        // SAFETY: nobody uses the descriptors of this process by their owners.
        ForkResult::Child => unsafe {
            // Above everything: the pipes may be on numbers that are wanted.
            let sources: Vec<_> = pipes
                .iter()
                .map(|(fd, pipe)| (libc::fcntl(pipe.as_raw_fd(), libc::F_DUPFD, 300), *fd))
                .collect();
            libc::close_range(3, 299, 0);
            for (source, fd) in sources {
                libc::dup3(source, fd, libc::O_CLOEXEC);
            }
            libc::close_range(300, u32::MAX, 0);
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            let is_right = redirect(&mut pairs).is_ok()
                && wanted.iter().all(|(fd, ino)| {
                    let fd = BorrowedFd::borrow_raw(*fd);
                    fstat(fd).is_ok_and(|stat| stat.st_ino == *ino)
                        && fcntl(fd, FcntlArg::F_GETFD) == Ok(0)
                });
            libc::_exit(if is_right { 0 } else { 1 });
        },
        ForkResult::Parent { child } => code_of(child) == 0,
    }
}

#[test]
fn further_descriptors_may_change_places_even_where_numbers_are_few() {
    for (open, pairs) in [
        (&[7][..], &[(7, 3)][..]),
        (&[3], &[(3, 3)]),
        (&[255], &[(255, 255)]),
        (&[7], &[(7, 255)]),
        (&[3, 4], &[(3, 4), (4, 3)]),
        (&[3, 4, 5], &[(3, 4), (4, 5), (5, 3)]),
        (&[9], &[(9, 3), (9, 4), (9, 5), (9, 9)]),
        (&[3, 0], &[(3, 0), (0, 3)]),
        (&[3, 4, 5, 6], &[(3, 0), (4, 1), (4, 2), (5, 4), (6, 3)]),
    ] {
        for limit in [256, 1024] {
            assert!(redirected(open, pairs, limit), "{pairs:?} below {limit}");
        }
    }
    assert!(!redirected(&[7], &[(7, 255)], 255), "there is no such number");
}

#[test]
fn a_descriptor_replaces_what_castoff_was_given_there() {
    let (input, output) = io::pipe().unwrap();
    let (mut from_three, three) = io::pipe().unwrap();
    let stdio = Stdio::apart(input.as_fd(), output.as_fd());
    let number = if three.as_raw_fd() == 9 { 8 } else { 9 };
    let script = format!("echo ready >&{number}; test -e /proc/self/fd/{}", three.as_raw_fd());
    let command = [c"/bin/sh".into(), c"-c".into(), CString::new(script).unwrap()];
    let mut launch = launch(&command, stdio);
    let descriptors = [(three.as_fd(), number)];
    launch.descriptors = &descriptors;
    let pid = spawn(&launch).unwrap();
    drop(three);
    let mut text = String::new();
    from_three.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready\n");
    assert_eq!(code_of(pid), 1, "castoff's own number is open too");
}

/// A user of no file.
fn user(uid: u32) -> Credentials {
    Credentials { uid, gid: uid, groups: vec![uid, 7], account: None }
}

#[test]
fn a_child_becomes_another_user_and_castoff_stays_open_to_look_at() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: only root can start a child as another user");
        return;
    }
    let (mut from_output, output) = io::pipe().unwrap();
    let (input, _to_input) = io::pipe().unwrap();
    let stdio = Stdio::apart(input.as_fd(), output.as_fd());
    let show =
        "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm)' /proc/self/status | tr -s '\\t ' ' '; pwd";
    let command = [c"/bin/sh".into(), c"-c".into(), CString::new(show).unwrap()];
    let user = user(54321);
    let launch = Launch { user: Some(&user), directory: Some(c"/usr"), ..launch(&command, stdio) };
    assert!(is_dumpable());
    let pid = spawn(&launch).unwrap();
    assert!(is_dumpable());
    drop(output);
    let mut text = String::new();
    from_output.read_to_string(&mut text).unwrap();
    assert_eq!(code_of(pid), 0);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let nothing = "0000000000000000";
    assert_eq!(
        lines,
        [
            "Uid: 54321 54321 54321 54321",
            "Gid: 54321 54321 54321 54321",
            "Groups: 7 54321",
            &format!("CapPrm: {nothing}"),
            &format!("CapEff: {nothing}"),
            "/usr",
        ]
    );
    // This process is who it was, in each of its threads.
    assert!(nix::unistd::Uid::effective().is_root());
}

#[test]
fn what_could_not_be_done_before_the_program_is_named() {
    let command = [c"/bin/true".into()];
    let missing =
        Launch { directory: Some(c"/no/such/directory"), ..launch(&command, Stdio::default()) };
    let error = spawn(&missing).unwrap_err();
    let text = "cannot enter CASTOFF_WORKDIR=\"/no/such/directory\": No such file or directory";
    assert_eq!(error.to_string(), text);
    assert_eq!(code_of(error.pid().unwrap()), 127);
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
    let stdio = Stdio::apart(input.as_fd(), output.as_fd());
    let start = || {
        assert_eq!(code_of(spawn_script("exit 3", stdio)), 3);
        let error = spawn(&launch(&[c"no-such-program".into()], stdio)).unwrap_err();
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
