//! A terminal: this test types and looks at the screen, castoff or a shell has
//! the other end.
#![expect(unsafe_code, reason = "requests to a terminal")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::unistd::tcgetpgrp;

use super::wait_until::PATIENCE;

/// The keys of job control.
pub(crate) const INTERRUPT: &str = "\x03";
pub(crate) const QUIT: &str = "\x1c";
pub(crate) const SUSPEND: &str = "\x1a";

pub(crate) struct Terminal {
    keyboard: File,
    other_end: OwnedFd,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Screen {
    /// Everything so far, and up to where `wait_for` has seen it.
    text: Mutex<(String, usize)>,
    changed: Condvar,
    is_over: AtomicBool,
}

/// A terminal: the end of its keyboard and screen, and the other one.
#[track_caller]
pub(crate) fn ends() -> (File, OwnedFd) {
    // Close-on-exec from the start: in the hands of another test's child
    // this end would keep the terminal from ever hanging up.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
    let path = ptsname_r(&master).expect("its name");
    let other_end = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    (OwnedFd::from(master).into(), other_end.expect("its other end").into())
}

impl Terminal {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let (keyboard, other_end) = ends();
        let screen = Arc::new(Screen::default());
        let (shown, source) = (screen.clone(), keyboard.try_clone().expect("a descriptor"));
        Self {
            keyboard,
            other_end,
            screen,
            reader: Some(std::thread::spawn(move || shown.fill(source))),
        }
    }

    /// For a standard descriptor of castoff.
    pub(crate) fn other_end(&self) -> OwnedFd {
        self.other_end.try_clone().expect("a descriptor")
    }

    #[track_caller]
    pub(crate) fn types(&self, keys: &str) -> &Self {
        (&self.keyboard).write_all(keys.as_bytes()).expect("the terminal takes keys");
        self
    }

    /// Waits until the screen shows `text` behind what was waited for last;
    /// returns what stands in between.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let begun = Instant::now();
        let mut shown = self.screen.text.lock().expect("no holder panics");
        loop {
            let (all, seen) = &mut *shown;
            if let Some(at) = all[*seen..].find(text) {
                let between = all[*seen..*seen + at].to_owned();
                *seen += at + text.len();
                return between;
            }
            assert!(begun.elapsed() < PATIENCE, "no {text:?} behind {seen} of\n{all}");
            shown = self.screen.changed.wait_timeout(shown, PATIENCE).expect("no holder panics").0;
        }
    }

    /// The process group in the foreground.
    #[track_caller]
    pub(crate) fn foreground(&self) -> i32 {
        tcgetpgrp(&self.keyboard).expect("a foreground group").as_raw()
    }

    #[track_caller]
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the size lives across the call.
        let done =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        Errno::result(done).expect("a new size");
    }

    /// `stty tostop`: writing from the background stops the writer.
    #[track_caller]
    pub(crate) fn stop_background_writers(&self) {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let mut modes = tcgetattr(&self.other_end).expect("its modes");
        modes.local_flags.insert(LocalFlags::TOSTOP);
        tcsetattr(&self.other_end, SetArg::TCSANOW, &modes).expect("its modes");
    }

    /// Goes away, as a closed window does.
    pub(crate) fn hang_up(self) {}
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The reader has this end of the terminal as well.
        self.screen.is_over.store(true, Ordering::Relaxed);
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

impl Screen {
    fn fill(&self, mut source: File) {
        let mut bytes = [0; 4096];
        while !self.is_over.load(Ordering::Relaxed) {
            let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(&source), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::from(10_u8)) != Ok(0)
                && let Ok(count) = source.read(&mut bytes)
            {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                self.text.lock().expect("no holder panics").0.push_str(&text);
                self.changed.notify_all();
            }
        }
    }
}
