//! Real sockets, and real processes that send to them.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::os::unix::process::CommandExt;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::forwarder::Unreachable;
use super::*;
use crate::policy::notify::{Kinship, is_believed};
use crate::system::tree;

/// A directory of its own for a test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("notify-test-{:016x}", RandomState::new().hash_one(0));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of each kind; the first is as if castoff's directories were private.
fn both(scratch: &Scratch) -> [NotifySocket; 2] {
    let path = NotifySocket::open(&[&scratch.0], Access::OwnUser).unwrap();
    let abstract_one = NotifySocket::open(&[], Access::OwnUser).unwrap();
    assert!(path.address().starts_with('/') && abstract_one.address().starts_with('@'));
    [path, abstract_one]
}

fn connected(address: &str) -> net::UnixDatagram {
    let to = match address.strip_prefix('@') {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(address),
    };
    let socket = net::UnixDatagram::unbound().unwrap();
    socket.connect_addr(&to.unwrap()).unwrap();
    socket
}

fn send_with(address: &str, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let socket = connected(address);
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let size = u32::try_from(size_of_val(numbers.as_slice())).unwrap();
    // SAFETY: arithmetic only.
    let space = unsafe { libc::CMSG_SPACE(size) as usize };
    let mut control = vec![0_u64; space.div_ceil(8)];
    let parts = [IoSlice::new(bytes)];
    // SAFETY: the header points to buffers that live, of the sizes that it gives.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = 1;
        if !numbers.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = space as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(size) as _;
            ptr::copy_nonoverlapping(
                numbers.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(message),
                size as usize,
            );
        }
        let sent = libc::sendmsg(socket.as_raw_fd(), &raw const header, 0);
        assert_eq!(sent, bytes.len() as isize, "{}", io::Error::last_os_error());
    }
}

async fn received(socket: &NotifySocket) -> Received {
    loop {
        socket.readable().await;
        if let Some(received) = socket.receive() {
            return received;
        }
    }
}

#[tokio::test]
async fn the_sender_is_told_on_both_kinds_of_sockets() {
    let scratch = Scratch::new();
    for socket in both(&scratch) {
        for bytes in [&b"READY=1"[..], b"", b"\xff\0"] {
            connected(socket.address()).send(bytes).unwrap();
            let expected = Received {
                bytes: bytes.to_vec(),
                pid: std::process::id() as i32,
                uid: Uid::current().as_raw(),
                had_descriptors: false,
            };
            assert_eq!(received(&socket).await, expected);
        }
        assert_eq!(socket.receive(), None);
    }
}

#[tokio::test]
async fn a_datagram_that_is_too_long_is_known_by_its_length() {
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    for (sent, seen) in [(4096, 4096), (4097, 4097), (100_000, 4097)] {
        connected(socket.address()).send(&vec![b'x'; sent]).unwrap();
        assert_eq!(received(&socket).await.bytes.len(), seen);
    }
}

#[tokio::test]
async fn a_sender_that_has_ended_is_told_all_the_same() {
    let scratch = Scratch::new();
    for (socket, is_taken) in both(&scratch).into_iter().zip([true, false]) {
        let sender = connected(socket.address());
        // SAFETY: the child makes one system call and does not return.
        let pid = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let is_sent = sender.send(b"READY=1").is_ok();
                // SAFETY: ends the process without the parent's exit handlers.
                unsafe { libc::_exit(if is_sent { 0 } else { 1 }) }
            }
            ForkResult::Parent { child } => child,
        };
        socket.readable().await;
        // Not reaped yet, it still has its parent.
        let proc = Path::new("/proc");
        assert_eq!(tree::kinship(proc, pid.as_raw()), Kinship::Descendant);
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
        let received = received(&socket).await;
        assert_eq!((&*received.bytes, received.pid), (&b"READY=1"[..], pid.as_raw()));
        let kinship = tree::kinship(proc, pid.as_raw());
        assert_eq!(kinship, Kinship::Gone);
        let is_private = socket.address().starts_with('/');
        assert_eq!(is_believed(kinship, is_private, received.pid), is_taken);
    }
}

/// The part that runs in a pid namespace of its own, as a neighbour in a Pod does.
#[tokio::test]
async fn in_own_namespace() {
    let Some(name) = std::env::var_os(IN_OWN_NAMESPACE) else { return };
    let socket = unbound().unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
    let received = loop {
        if let Ok(received) = receive(socket.as_raw_fd()) {
            break received;
        }
        std::thread::yield_now();
    };
    assert_eq!((&*received.bytes, received.pid), (&b"READY=1"[..], 0));
    let kinship = tree::kinship(Path::new("/proc"), received.pid);
    assert!(!is_believed(kinship, true, received.pid));
}

#[test]
fn a_sender_from_another_pid_namespace_has_no_pid() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: a pid namespace needs root");
        return;
    }
    let name = format!("castoff-test-{:016x}", RandomState::new().hash_one(0));
    let mut inside = std::process::Command::new("unshare");
    inside.args(["--pid", "--fork", "--"]).arg(std::env::current_exe().unwrap());
    inside.args(["--exact", "system::notify::tests::in_own_namespace"]);
    inside.env(IN_OWN_NAMESPACE, &name).stdout(std::process::Stdio::piped());
    let mut inside = inside.spawn().unwrap();
    let to = net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = net::UnixDatagram::unbound().unwrap();
    while socket.send_to_addr(b"READY=1", &to).is_err() {
        assert_eq!(inside.try_wait().unwrap(), None, "it has not listened");
        std::thread::yield_now();
    }
    let output = inside.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn descriptors_are_closed_by_the_receipt_and_not_before() {
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    let (mut waiting, barrier) = io::pipe().unwrap();
    connected(socket.address()).send(b"READY=1").unwrap();
    send_with(socket.address(), b"BARRIER=1", &[barrier.as_fd()]);
    drop(barrier);
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&waiting, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut is_closed = || io::Read::read(&mut waiting, &mut [0; 1]).is_ok_and(|count| count == 0);
    assert!(!received(&socket).await.had_descriptors);
    assert!(!is_closed(), "the message before it is being dealt with");
    let barrier = received(&socket).await;
    assert_eq!((&*barrier.bytes, barrier.had_descriptors), (&b"BARRIER=1"[..], true));
    assert!(barrier.pid > 0, "the sender is known whatever came with it");
    // A process that another test has just forked may have it open still.
    while !is_closed() {
        std::thread::yield_now();
    }
}

const IN_OWN_NAMESPACE: &str = "NOTIFY_TEST_IN_OWN_NAMESPACE";
const IN_OWN_PROCESS: &str = "NOTIFY_TEST_IN_OWN_PROCESS";

/// The part that counts what the whole process has, and takes all of it.
#[tokio::test]
async fn in_own_process() {
    if std::env::var_os(IN_OWN_PROCESS).is_none() {
        return;
    }
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    let (null, before) = (File::open("/dev/null").unwrap(), count());
    for number in [1, 3, 253] {
        for _ in 0..20 {
            send_with(socket.address(), b"FDSTORE=1", &vec![null.as_fd(); number]);
            let received = received(&socket).await;
            assert!(received.had_descriptors && received.pid > 0);
        }
    }
    assert_eq!(count(), before);
    // Nor does a lack of descriptors lose a message.
    let address = socket.address().to_owned();
    send_with(&address, b"READY=1", &[null.as_fd(); 3]);
    let sender = connected(&address);
    let mut all = Vec::new();
    while let Ok(fd) = null.try_clone() {
        all.push(fd);
    }
    sender.send(b"WATCHDOG=1").unwrap();
    let bytes = [received(&socket).await.bytes, received(&socket).await.bytes];
    assert_eq!(bytes, [b"READY=1".to_vec(), b"WATCHDOG=1".to_vec()]);
}

#[test]
fn no_descriptor_is_ever_received() {
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "system::notify::tests::in_own_process"]).env(IN_OWN_PROCESS, "1");
    let lower = || {
        let limit = libc::rlimit { rlim_cur: 400, rlim_max: 400 };
        // SAFETY: the limit lives across the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        Ok(())
    };
    // SAFETY: what runs before the exec is one system call.
    let output = unsafe { test.pre_exec(lower) }.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn a_flood_leaves_others_their_turns() {
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    let sender = connected(socket.address());
    let flood = std::thread::spawn(move || while sender.send(b"WATCHDOG=1").is_ok() {});
    received(&socket).await;
    let others = async {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    };
    let mut others = std::pin::pin!(others);
    // It would go on for ever.
    loop {
        tokio::select! {
            biased;
            () = socket.readable() => {
                (0..TURN).map_while(|_| socket.receive()).for_each(drop);
            }
            () = &mut others => break,
        }
    }
    drop(socket);
    flood.join().unwrap();
}

#[tokio::test]
async fn nothing_is_lost_when_a_wait_is_broken_off() {
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    let sender = connected(socket.address());
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = socket.readable() => panic!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
    }
    sender.send(b"READY=1").unwrap();
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = socket.readable() => break,
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(received(&socket).await.bytes, b"READY=1");
}

/// So that a sender can be looked up before it is reaped.
#[tokio::test]
async fn what_has_come_is_there_before_the_loop_has_been_told() {
    let socket = NotifySocket::open(&[], Access::OwnUser).unwrap();
    for _ in 0..3 {
        connected(socket.address()).send(b"READY=1").unwrap();
        assert_eq!(socket.receive().map(|received| received.bytes), Some(b"READY=1".to_vec()));
        assert_eq!(socket.receive(), None);
    }
    // Nor is the loop kept awake by what has been taken.
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        () = async {
            loop {
                socket.readable().await;
                assert_eq!(socket.receive(), None);
            }
        } => {}
        () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
    }
    connected(socket.address()).send(b"STOPPING=1").unwrap();
    assert_eq!(received(&socket).await.bytes, b"STOPPING=1");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn the_directory_is_private_and_goes_with_the_socket() {
    let scratch = Scratch::new();
    for (access, modes) in [(Access::OwnUser, (0o700, 0o600)), (Access::Everybody, (0o711, 0o666))]
    {
        let socket = NotifySocket::open(&[&scratch.0], access).unwrap();
        let path = PathBuf::from(socket.address());
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), modes);
        assert_eq!(scratch.entries(), 1);
        drop(socket);
        assert_eq!(scratch.entries(), 0);
    }
}

#[tokio::test]
async fn the_first_directory_that_can_be_used_is_taken() {
    let scratch = Scratch::new();
    let file = scratch.0.join("file");
    File::create(&file).unwrap();
    let long = scratch.0.join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let good = scratch.0.join("good");
    fs::create_dir(&good).unwrap();
    let candidates = [Path::new("/nonexistent"), Path::new("/proc"), &file, &long, &good];
    let socket = NotifySocket::open(&candidates, Access::OwnUser).unwrap();
    assert!(Path::new(socket.address()).starts_with(&good));
    assert_eq!(fs::read_dir(&long).unwrap().count(), 0, "a failure leaves nothing behind");
    let relative = NotifySocket::open(&[Path::new("target")], Access::OwnUser).unwrap();
    assert!(relative.address().starts_with('@'), "{}", relative.address());
}

#[tokio::test]
async fn only_the_file_system_of_the_root_is_private() {
    let of = |path: &str| NotifySocket::open(&[Path::new(path)], Access::OwnUser).unwrap();
    assert!(!NotifySocket::open(&[], Access::OwnUser).unwrap().is_private());
    for directory in CANDIDATES {
        let socket = of(directory);
        let is_path = socket.address().starts_with(directory);
        assert_eq!(socket.is_private(), is_path && is_on_root(Path::new(directory)), "{directory}");
    }
    if fs::read_to_string("/proc/mounts").unwrap().contains(" /dev/shm ") {
        assert!(!of("/dev/shm").is_private());
    }
}

#[tokio::test]
async fn what_has_taken_the_place_of_the_directory_is_left_alone() {
    let scratch = Scratch::new();
    let victim = scratch.0.join("victim");
    fs::create_dir(&victim).unwrap();
    File::create(victim.join(NAME)).unwrap();
    let socket = NotifySocket::open(&[&scratch.0], Access::OwnUser).unwrap();
    let home = Path::new(socket.address()).parent().unwrap().to_owned();
    fs::rename(&home, scratch.0.join("moved")).unwrap();
    std::os::unix::fs::symlink(&victim, &home).unwrap();
    drop(socket);
    assert!(victim.join(NAME).exists() && home.is_symlink());
}

#[tokio::test]
async fn a_copy_of_the_process_removes_nothing() {
    let scratch = Scratch::new();
    let mut home = Home::make(&scratch.0).unwrap();
    home.maker += 1;
    drop(home);
    assert_eq!(scratch.entries(), 1);
}

/// As gosu and su do it in the images of databases.
#[tokio::test]
async fn a_child_that_has_changed_its_user_reaches_an_open_socket_only() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: another user needs root");
        return;
    }
    for (access, is_reached) in [
        (Access::OwnUser, false),
        (Access::Everybody, true),
        (Access::User(65534), true),
        (Access::User(65533), false),
    ] {
        let scratch = Scratch::new();
        let socket = NotifySocket::open(&[&scratch.0], access).unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        // SAFETY: the child makes system calls only and does not return.
        let pid = match unsafe { fork() }.unwrap() {
            // SAFETY: as above; by the system call, for it is about one thread.
            ForkResult::Child => unsafe {
                libc::syscall(libc::SYS_setuid, 65534);
                let is_sent = sender.send_to(b"READY=1", socket.address()).is_ok();
                libc::_exit(i32::from(is_sent))
            },
            ForkResult::Parent { child } => child,
        };
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, i32::from(is_reached))));
        if is_reached {
            assert_eq!(received(&socket).await.uid, 65534);
        }
    }
}

#[tokio::test]
async fn what_is_forwarded_arrives_from_castoff_itself() {
    let scratch = Scratch::new();
    for socket in both(&scratch) {
        let forwarder = Forwarder::open(OsStr::new(socket.address())).unwrap();
        forwarder.send("READY=1\n").unwrap();
        let received = received(&socket).await;
        let own = std::process::id() as i32;
        assert_eq!((&*received.bytes, received.pid), (&b"READY=1\n"[..], own));
        // Nobody reads: neither a wait nor a signal.
        let full = (0..100_000).find_map(|_| forwarder.send("STATUS=x\n").err());
        assert_eq!(full, Some(Errno::EAGAIN));
        drop(socket);
        // A process that another test has just forked may have it open still.
        let error = loop {
            match forwarder.send("STOPPING=1\n").unwrap_err() {
                Errno::EAGAIN => std::thread::yield_now(),
                error => break error,
            }
        };
        assert!(matches!(error, Errno::ECONNREFUSED | Errno::ENOENT), "{error}");
    }
}

#[test]
fn an_address_that_cannot_be_sent_to_is_refused() {
    for text in ["", "@", "vsock:2:1234", "run/notify", "unix:/run/notify"] {
        let error = Forwarder::open(OsStr::new(text)).unwrap_err();
        assert_eq!(error, Unreachable::Unsupported, "{text:?}");
    }
    let long = format!("/{}", "x".repeat(200));
    let error = Forwarder::open(OsStr::new(&long)).unwrap_err();
    assert_eq!(error.to_string(), "File name too long");
    let text = "its form is not supported: expected an absolute path or an abstract name with @";
    assert_eq!(Unreachable::Unsupported.to_string(), text);
}
