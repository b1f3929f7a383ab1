//! What castoff exits with: the child's code, 128 + n, 127, 126 and 125.

use crate::support::{Castoff, Ended, in_both_places};

in_both_places! {
    fn the_childs_own_code_is_castoffs(place) {
        for code in [0, 1, 42, 125, 255] {
            let mut castoff = Castoff::new(place).script(&format!("exit {code}")).run();
            assert_eq!(castoff.wait(), Ended::Code(code));
        }
    }
}
