//! castoff where the kernel refuses: it says so and ends with 125, or it goes
//! on; it never hangs and never dies of it.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setuid};

use crate::support::{Castoff, Place, in_both_places};

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
