//! `podman run -it`: the child is in front of a real terminal, as if castoff
//! were not there.
#![expect(unsafe_code, reason = "a terminal of its own for podman")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Child;

use nix::pty::{OpenptyResult, openpty};

use crate::lines::Lines;
use crate::podman::{Container, Image, podman};
use crate::wait_until::wait_until;

/// A terminal with `podman run -it` in it. Dropping it removes the container.
struct Terminal {
    keyboard: File,
    screen: Lines,
    podman: Child,
    name: String,
}

impl Terminal {
    #[track_caller]
    fn open(container: Container) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        let (mut command, name) = container.option("--interactive").option("--tty").command();
        let end = || slave.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: between fork and exec there are only two system calls.
        unsafe { command.pre_exec(lead_a_session) };
        let podman = command.spawn().expect("podman starts");
        // The screen ends when the last of podman's processes has closed it.
        drop((command, slave));
        let screen = Lines::of("screen", File::from(master.try_clone().expect("a descriptor")));
        Self { keyboard: File::from(master), screen, podman, name }
    }

    /// Types `keys`, return included where there is one.
    #[track_caller]
    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    #[track_caller]
    fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the size lives across the call.
        let done =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    /// Waits for a line with this in it: what is typed may stand before it.
    #[track_caller]
    fn shows(&self, text: &str) {
        self.screen.wait_for(text, |line| line.contains(text).then_some(()));
    }

    #[track_caller]
    fn code(&mut self) -> i32 {
        let ended = wait_until("podman ends", || self.podman.try_wait().ok().flatten());
        ended.code().unwrap_or_else(|| panic!("podman: {ended}"))
    }

    /// The lines with this in them, once the container has ended.
    #[track_caller]
    fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.screen.all().into_iter().filter(|line| line.contains(text));
        lines.map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }
}

/// podman finds its terminal as it would in a window.
fn lead_a_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: takes two numbers.
    match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = podman().args(["rm", "--force", "--time=0", "--ignore", &self.name]).output();
        let _ = self.podman.kill();
        let _ = self.podman.wait();
    }
}

#[test]
fn the_child_is_in_front_and_its_code_passes() {
    let mut terminal = Terminal::open(Container::of(Image::Scratch).child(["/print_env"]));
    assert_eq!(terminal.code(), 0);
    assert_eq!(terminal.lines_with("is_foreground"), ["is_foreground\ttrue"]);

    let script = "test -t 0 && test -t 1 && exit 9";
    let mut terminal = Terminal::open(Container::of(Image::Busybox).child(["sh", "-c", script]));
    assert_eq!(terminal.code(), 9);
}

#[test]
fn a_key_and_a_new_size_reach_the_child_once() {
    let child = Container::of(Image::Scratch).child(["/print_signals", "--only-print"]);
    // podman would pass on the SIGWINCH that it gets itself, besides the size.
    let mut terminal = Terminal::open(child.option("--sig-proxy=false"));
    terminal.shows("ready ");
    terminal.types("\x03");
    terminal.shows("2 value=");
    terminal.resize(33, 111);
    terminal.shows("28 value=");
    // The last signal: whatever came twice has come by now.
    terminal.types("\x1c");
    terminal.shows("3 value=");
    let _ = podman().args(["kill", "--signal=KILL", &terminal.name]).output();
    assert_eq!(terminal.code(), 137);
    for signal in ["2 value=", "28 value=", "3 value="] {
        assert_eq!(terminal.lines_with(signal).len(), 1, "{:?}", terminal.screen.all());
    }
}

#[test]
fn a_shell_has_job_control() {
    stop_and_continue_a_job("");
}

#[test]
fn castoff_itself_is_a_job_like_any_other() {
    stop_and_continue_a_job("/castoff --health-listen off --log-level off -- ");
}

/// Types to a shell that is castoff's child: a job behind `prefix`, ^Z, `fg`
/// twice over, and ^C.
#[track_caller]
fn stop_and_continue_a_job(prefix: &str) {
    let mut terminal = Terminal::open(Container::of(Image::Busybox).child(["sh"]));
    // What is typed is on the screen too, so no mark is typed as it is printed.
    let trap = r#"trap "n=1\$n; echo resum\"\"ed \$n" CONT"#;
    let job = format!("sh -c '{trap}; echo runn\"\"ing; while :; do sleep 1; done'");
    terminal.types(&format!("{prefix}{job}\r"));
    terminal.shows("running");
    for time in ["1", "11"] {
        terminal.types("\x1a");
        terminal.types(&format!("echo bac\"\"k {time}\r"));
        terminal.shows(&format!("back {time}"));
        // `fg` has put it in front before it goes on.
        terminal.types("fg\r");
        terminal.shows(&format!("resumed {time}"));
    }
    terminal.types("\x03");
    terminal.types("echo cod\"\"e $?\r");
    terminal.shows("code 130");
    terminal.types("exit 7\r");
    assert_eq!(terminal.code(), 7);
}
