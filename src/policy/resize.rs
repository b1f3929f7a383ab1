//! What it means that limits were read again: old and new ones in, the change
//! that matters out.
//!
//! A limit is its value: one that is found elsewhere now is none that changed.
//! What could not be read for a moment is not taken for gone.

use super::limits::{Limit, Limits, Unclear};

/// What changed; at least one of them has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub(crate) cpus: Option<Step<f64>>,
    pub(crate) memory_bytes: Option<Step<u64>>,
    pub(crate) pids: Option<Step<u64>>,
}

/// A limit before and after; `None` on one side: there was none, or is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step<T> {
    pub(crate) from: Option<T>,
    pub(crate) to: Option<T>,
}

/// What differs between `old` and `new`; `None` when nothing does.
pub(crate) fn change(old: &Limits, new: &Limits) -> Option<Change> {
    let change = Change {
        cpus: step(&old.cpus, &new.cpus),
        memory_bytes: step(&old.memory_bytes, &new.memory_bytes),
        pids: step(&old.pids, &new.pids),
    };
    (change != Change::default()).then_some(change)
}

fn step<T: Copy + PartialEq>(old: &Option<Limit<T>>, new: &Option<Limit<T>>) -> Option<Step<T>> {
    let value = |limit: &Option<Limit<T>>| limit.as_ref().map(|limit| limit.value);
    let step = Step { from: value(old), to: value(new) };
    (step.from != step.to).then_some(step)
}

/// The limits to believe in when `new` was read after `old`. `usual` files were
/// unclear when castoff started, and may be so for ever; where there are more of
/// them now, the old limit holds on.
pub(crate) fn believed(old: &Limits, new: Limits, usual: Unclear, unclear: Unclear) -> Limits {
    let mut limits = new;
    if unclear.cpus > usual.cpus {
        limits.cpus.clone_from(&old.cpus);
        limits.levels.cpus = old.levels.cpus;
        limits.affinity = old.affinity;
    }
    if unclear.memory_bytes > usual.memory_bytes {
        limits.memory_bytes.clone_from(&old.memory_bytes);
        limits.levels.memory_bytes = old.levels.memory_bytes;
    }
    if unclear.pids > usual.pids {
        limits.pids.clone_from(&old.pids);
        limits.levels.pids = old.levels.pids;
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = Limits> {
        let source = || "[ab]".prop_map(|name| format!("/sys/fs/cgroup/{name}"));
        let whole = move || {
            proptest::option::of((1..4u64, source()))
                .prop_map(|limit| limit.map(|(value, source)| Limit { value, source }))
        };
        let cpus = proptest::option::of((1..4u8, source())).prop_map(|limit| {
            limit.map(|(halves, source)| Limit { value: f64::from(halves) / 2.0, source })
        });
        (cpus, whole(), whole(), proptest::option::of(1..4u32)).prop_map(
            |(cpus, memory_bytes, pids, affinity)| Limits {
                cpus,
                memory_bytes,
                pids,
                affinity,
                ..Limits::default()
            },
        )
    }

    fn memory(value: u64, source: &str) -> Limits {
        let source = source.to_owned();
        Limits { memory_bytes: Some(Limit { value, source }), ..Limits::default() }
    }

    #[test]
    fn another_source_alone_is_no_change() {
        assert_eq!(change(&memory(7, "a"), &memory(7, "b")), None);
        let affinity = Limits { affinity: Some(2), ..memory(7, "a") };
        assert_eq!(change(&memory(7, "a"), &affinity), None);
    }

    #[test]
    fn a_limit_that_comes_or_goes_is_told_from_one_that_stays() {
        let (none, low, high) = (Limits::default(), memory(5, "a"), memory(9, "a"));
        let memory_of = |old: &Limits, new: &Limits| {
            let change = change(old, new).expect("it changed");
            assert_eq!((change.cpus, change.pids), (None, None));
            change.memory_bytes
        };
        assert_eq!(memory_of(&none, &low), Some(Step { from: None, to: Some(5) }));
        assert_eq!(memory_of(&low, &high), Some(Step { from: Some(5), to: Some(9) }));
        assert_eq!(memory_of(&high, &none), Some(Step { from: Some(9), to: None }));
    }

    #[test]
    fn what_could_not_be_read_is_not_gone() {
        let (old, gone) = (memory(5, "a"), Limits::default());
        let unclear = |memory_bytes| Unclear { memory_bytes, ..Unclear::default() };
        assert_eq!(believed(&old, gone.clone(), unclear(0), unclear(1)), old);
        assert_eq!(believed(&old, gone.clone(), unclear(1), unclear(1)), gone);
        // Another kind's file says nothing of this one.
        let cpus = Unclear { cpus: 1, ..Unclear::default() };
        assert_eq!(believed(&old, gone.clone(), Unclear::default(), cpus), gone);
    }

    proptest! {
        #[test]
        fn a_change_leads_from_the_old_values_to_the_new_ones(old in limits(), new in limits()) {
            prop_assert_eq!(change(&old, &old), None);
            let found = change(&old, &new).unwrap_or_default();
            let value = |limit: &Option<Limit<u64>>| limit.as_ref().map(|limit| limit.value);
            for (step, old, new) in [
                (found.memory_bytes, &old.memory_bytes, &new.memory_bytes),
                (found.pids, &old.pids, &new.pids),
            ] {
                let stays = Step { from: value(old), to: value(new) };
                prop_assert_eq!(step.unwrap_or(stays), stays);
                prop_assert_eq!(step.is_some(), stays.from != stays.to);
            }
            // The way back is the same way.
            let back = change(&new, &old).unwrap_or_default();
            prop_assert_eq!(
                found.cpus.map(|step| (step.from, step.to)),
                back.cpus.map(|step| (step.to, step.from))
            );
        }

        #[test]
        fn with_everything_unclear_nothing_changes(old in limits(), new in limits()) {
            let all = Unclear { cpus: 1, memory_bytes: 1, pids: 1 };
            let kept = believed(&old, new.clone(), Unclear::default(), all);
            prop_assert_eq!(change(&old, &kept), None);
            let clear = Unclear::default();
            prop_assert_eq!(believed(&old, new.clone(), clear, clear), new);
        }
    }
}
