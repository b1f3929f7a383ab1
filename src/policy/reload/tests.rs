//! Bursts on a virtual clock, and looks at files that come, change and go.

use proptest::prelude::*;

use super::*;

fn file(print: u64) -> Sight {
    Sight::File(Fingerprint(print))
}

fn directory(entries: &[(&str, u64)]) -> Sight {
    let entry = |(name, print): &(&str, u64)| (OsString::from(name), Fingerprint(*print));
    Sight::Directory(entries.iter().map(entry).collect())
}

/// A memory of `/a`, which has seen this.
fn memory(sight: Sight) -> Memory {
    let mut memory = Memory::new(vec![PathBuf::from("/a")]);
    assert_eq!(memory.compare(vec![sight]), News::default(), "the first look is no news");
    memory
}

fn changed(paths: &[&str]) -> News {
    News { changed: paths.iter().map(PathBuf::from).collect(), ..News::default() }
}

fn look_again() -> News {
    News { must_look_again: true, ..News::default() }
}

fn lost() -> News {
    News { lost: vec![PathBuf::from("/a")], ..News::default() }
}

#[test]
fn a_look_waits_for_quiet_but_not_for_ever() {
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let mut burst = Burst::default();
    assert_eq!(burst.due_at(), None);
    burst.heard(at(0));
    assert_eq!(burst.due_at(), Some(at(500)));
    burst.heard(at(499));
    assert_eq!(burst.due_at(), Some(at(999)));
    for millis in (900..9000).step_by(400) {
        burst.heard(at(millis));
    }
    assert_eq!(burst.due_at(), Some(at(5000)));
    burst.end();
    assert_eq!(burst.due_at(), None);
    burst.heard(at(9000));
    assert_eq!(burst.due_at(), Some(at(9500)));
}

#[test]
fn a_file_that_is_watched_in_two_ways_has_changed_once() {
    let mut memory = Memory::new(vec!["/d".into(), "/d/a".into(), "/d/a".into()]);
    let sights = |print| vec![directory(&[("a", print)]), file(print), file(print)];
    memory.compare(sights(1));
    assert_eq!(memory.compare(sights(2)), changed(&["/d/a"]));
}

#[test]
fn other_contents_are_a_change_and_the_same_are_none() {
    let mut memory = memory(file(1));
    assert_eq!(memory.compare(vec![file(1)]), News::default());
    assert_eq!(memory.compare(vec![file(2)]), changed(&["/a"]));
    assert_eq!(memory.compare(vec![file(2)]), News::default());
    assert_eq!(memory.compare(vec![file(1)]), changed(&["/a"]));
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_no_news() {
    let mut memory = memory(file(1));
    assert_eq!(memory.compare(vec![Sight::Absent]), look_again());
    assert_eq!(memory.compare(vec![file(1)]), News::default());
    assert_eq!(memory.compare(vec![Sight::Absent]), look_again());
    assert_eq!(memory.compare(vec![file(2)]), changed(&["/a"]));
}

#[test]
fn a_file_that_is_gone_is_told_once_and_changed_only_if_it_comes_back_with_other_contents() {
    let mut memory = memory(file(1));
    for back in [file(1), file(2)] {
        assert_eq!(memory.compare(vec![Sight::Absent]), look_again());
        assert_eq!(memory.compare(vec![Sight::Absent]), lost());
        assert_eq!(memory.compare(vec![Sight::Absent]), News::default());
        let expected = if back == file(1) { News::default() } else { changed(&["/a"]) };
        assert_eq!(memory.compare(vec![back]), expected);
    }
}

#[test]
fn a_path_that_did_not_exist_is_changed_when_it_does() {
    for found in [file(1), directory(&[])] {
        let mut memory = memory(Sight::Absent);
        assert_eq!(memory.compare(vec![Sight::Absent]), News::default());
        assert_eq!(memory.compare(vec![found]), changed(&["/a"]));
    }
}

#[test]
fn what_cannot_be_told_changes_nothing() {
    let mut of_file = memory(file(1));
    assert_eq!(of_file.compare(vec![Sight::Unclear]), News::default());
    assert_eq!(of_file.compare(vec![file(1)]), News::default());
    assert_eq!(of_file.compare(vec![Sight::Absent]), look_again());
    assert_eq!(of_file.compare(vec![Sight::Unclear]), News::default());
    assert_eq!(of_file.compare(vec![file(2)]), changed(&["/a"]));
    // What was never clear is not known to have been something else.
    let mut unclear = memory(Sight::Unclear);
    assert_eq!(unclear.compare(vec![file(1)]), News::default());
    assert_eq!(unclear.compare(vec![file(2)]), changed(&["/a"]));
}

#[test]
fn of_a_directory_its_files_are_told() {
    let mut memory = memory(directory(&[("x", 1), ("y", 1)]));
    let news = memory.compare(vec![directory(&[("new", 1), ("x", 2), ("y", 1)])]);
    assert_eq!(news, changed(&["/a/new", "/a/x"]));
    let renamed = directory(&[("new", 1), ("y", 1), ("z", 2)]);
    assert_eq!(memory.compare(vec![renamed.clone()]), look_again());
    assert_eq!(memory.compare(vec![renamed]), changed(&["/a/x", "/a/z"]));
    assert_eq!(memory.compare(vec![file(1)]), changed(&["/a"]));
}

#[test]
fn a_file_of_a_directory_that_is_back_in_time_was_never_gone() {
    let mut memory = memory(directory(&[("x", 1), ("y", 1)]));
    assert_eq!(memory.compare(vec![directory(&[("y", 1)])]), look_again());
    let back = directory(&[("x", 1), ("y", 2)]);
    assert_eq!(memory.compare(vec![back]), changed(&["/a/y"]));
}

fn sights() -> impl Strategy<Value = Sight> {
    let entries = || proptest::collection::btree_map("[a-c]", 0..3u64, 0..4);
    prop_oneof![
        Just(Sight::Absent),
        Just(Sight::Unclear),
        (0..3u64).prop_map(file),
        entries().prop_map(|entries| {
            let print = |(name, print): (String, u64)| (name.into(), Fingerprint(print));
            Sight::Directory(entries.into_iter().map(print).collect())
        }),
    ]
}

proptest! {
    #[test]
    fn each_look_is_due_after_quiet_or_after_the_longest_burst(
        gaps in proptest::collection::vec(0..1200u64, 1..60),
    ) {
        let begin = Instant::now();
        let (mut now, mut burst) = (begin, Burst::default());
        let (mut first, mut last) = (None, begin);
        let mut looks = 0;
        for gap in gaps {
            let next = now + Duration::from_millis(gap);
            // The shell sleeps until a look is due, however late it wakes up.
            if let Some(due_at) = burst.due_at().filter(|due_at| *due_at <= next) {
                let first = first.take().expect("something was heard");
                prop_assert!(due_at == last + QUIET_TIME || due_at == first + BURST_MAX);
                prop_assert!(due_at <= last + QUIET_TIME && due_at <= first + BURST_MAX);
                burst.end();
                looks += 1;
            }
            now = next;
            burst.heard(now);
            first = first.or(Some(now));
            last = now;
            prop_assert!(burst.due_at().is_some());
        }
        // Two looks are never closer than the quiet time.
        prop_assert!(looks <= now.duration_since(begin).as_millis() / QUIET_TIME.as_millis());
    }

    #[test]
    fn what_stays_as_it_is_is_told_once(
        history in proptest::collection::vec(sights(), 1..8),
        last in sights(),
    ) {
        let mut memory = Memory::new(vec![PathBuf::from("/a")]);
        for sight in history {
            memory.compare(vec![sight]);
        }
        // A look, and the second one that it may ask for.
        let first = memory.compare(vec![last.clone()]);
        prop_assert!(!first.must_look_again || first.changed.is_empty());
        let second = memory.compare(vec![last.clone()]);
        prop_assert!(!second.must_look_again);
        prop_assert!(first.must_look_again || second == News::default());
        prop_assert_eq!(memory.compare(vec![last]), News::default());
    }

    #[test]
    fn whatever_came_between_the_end_differs_from_the_beginning_or_nothing_is_told_of_it(
        from in sights(), to in sights(),
    ) {
        prop_assume!(from != Sight::Unclear && to != Sight::Unclear && to != Sight::Absent);
        let mut memory = memory(from.clone());
        let mut changed = memory.compare(vec![to.clone()]).changed;
        changed.extend(memory.compare(vec![to.clone()]).changed);
        prop_assert_eq!(changed.is_empty(), from == to);
    }
}
