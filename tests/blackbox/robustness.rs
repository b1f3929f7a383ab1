//! castoff where the kernel refuses: it says so and ends with 125, or it goes
//! on; it never hangs and never dies of it.

use std::fs::File;
use std::net::TcpStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{Gid, Uid, setgid, setuid};

use crate::support::{Castoff, Place, Scratch, example, in_both_places, process, wait_until};

in_both_places! {
    fn few_descriptors_are_enough_or_a_reason_to_say_so(place) {
        let mut codes = Vec::new();
        for count in 3..24 {
            let castoff = Castoff::new(place).last(move || {
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
                Ok(setrlimit(Resource::RLIMIT_NOFILE, count, hard)?)
            });
            // A child that needs none itself.
            let mut castoff = castoff.child(env!("CARGO_BIN_EXE_castoff"), ["--version"]).run();
            let code = castoff.code();
            assert!(code == 0 || code == 125, "{count} descriptors: {code}");
            if code == 125 {
                castoff.log().wait_for_line("castoff: cannot ");
            }
            codes.push(code);
        }
        assert!(codes.is_sorted_by(|before, after| before >= after), "{codes:?}");
        assert_eq!(codes.last(), Some(&0));
    }

    fn clients_cannot_take_the_descriptors_that_the_deadline_needs(place) {
        let castoff = Castoff::new(place).last(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            Ok(setrlimit(Resource::RLIMIT_NOFILE, 40, hard)?)
        });
        let castoff = castoff.args(["--grace-period", "1s", "--kill-reserve", "700ms"]);
        let mut castoff = castoff.child(&example("stubborn"), ["2"]).start();
        castoff.until_serving();
        castoff.stdout().wait_for_line("stubborn: ");
        let child = castoff.child();
        let address = castoff.address();
        let _clients: Vec<_> =
            (0..60).map(|_| TcpStream::connect(address).expect("a connection")).collect();
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 137);
        wait_until("the child has gone", || process::state(child).is_none().then_some(()));
        assert!(castoff.log().events().iter().all(|line| line["cause"] != "gave_up"));
    }

    fn a_log_that_meets_its_size_limit_is_no_concern_of_the_childs(place) {
        let scratch = Scratch::new();
        let log = File::create(scratch.path("log")).expect("a file");
        let castoff = Castoff::new(place).with(|command| { command.stderr(log); }).last(|| {
            Ok(setrlimit(Resource::RLIMIT_FSIZE, 1024, 1024)?)
        });
        let mut castoff = castoff.child(&example("print_signals"), [""; 0]).start();
        castoff.stdout().wait_for_line("ready ");
        // Each makes log lines, and those beyond the limit a SIGXFSZ.
        for number in 1..=20 {
            castoff.signal(libc::SIGUSR1);
            let arrived = format!("{} ", libc::SIGUSR1);
            wait_until("it arrives", || {
                let lines = castoff.stdout().so_far();
                (lines.iter().filter(|line| line.starts_with(&arrived)).count() == number).then_some(())
            });
        }
        castoff.signal(libc::SIGTERM);
        assert_eq!(castoff.code(), 0);
        let its_own = format!("{} ", libc::SIGXFSZ);
        assert!(!castoff.stdout().all().iter().any(|line| line.starts_with(&its_own)));
    }

    fn an_early_stop_signal_that_is_ignored_by_default_is_not_lost(place) {
        let settings = ["--stop-on", "SIGWINCH", "--stop-signal", "SIGTERM"];
        let castoff = Castoff::new(place).args(settings).last(|| {
            // Pending and blocked at the exec, as if it had come just after.
            let mut winch = SigSet::empty();
            winch.add(Signal::SIGWINCH);
            winch.thread_block()?;
            Ok(raise(Signal::SIGWINCH)?)
        });
        let mut castoff = castoff.child("sleep", ["1000"]).start();
        assert_eq!(castoff.code(), 143);
    }
}

#[test]
fn a_child_that_cannot_be_made_is_castoffs_failure() {
    let castoff = Castoff::new(Place::Subreaper).last(|| {
        if Uid::current().is_root() {
            // The limit is none for root. Nobody else here is this user.
            setgid(Gid::from_raw(64_999))?;
            setuid(Uid::from_raw(64_999))?;
        }
        Ok(setrlimit(Resource::RLIMIT_NPROC, 1, 1)?)
    });
    let mut castoff = castoff.child("true", [""; 0]).run();
    assert_eq!(castoff.code(), 125);
    castoff.log().wait_for_line("castoff: cannot run \"true\": cannot make a process: ");
}
