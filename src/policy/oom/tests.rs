//! Histories of kills and looks, and the texts of kernels old and new.

use super::*;
use proptest::prelude::*;

const V2: &[u8] = b"low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 1\n";

fn counts(kills: u64) -> Option<OomCounts> {
    Some(OomCounts { kills, ..OomCounts::default() })
}

fn kill(count: u64, victim: Victim) -> OomKill {
    OomKill { count, victim }
}

#[test]
fn each_kernels_file_is_understood() {
    let of = |kills, group_kills| Some(OomCounts { kills, group_kills, is_killed_whole: false });
    assert_eq!(OomCounts::parse(V2), of(3, 1));
    assert_eq!(OomCounts::parse(b"low 0\nhigh 0\nmax 0\noom 0\noom_kill 7\n"), of(7, 0));
    assert_eq!(OomCounts::parse(b"oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), of(4, 0));
    assert_eq!(OomCounts::parse(b"oom_kill 18446744073709551615"), of(u64::MAX, 0));
}

#[test]
fn a_file_that_counts_no_kills_is_none() {
    for text in [
        &b""[..],
        b"oom_kill_disable 0\nunder_oom 0\n",
        b"oom_kill\n",
        b"oom_kill many\n",
        b"oom_kill -1\n",
        b"oom_kill 18446744073709551616\n",
        b"\xff\xfe oom_kill 3\n",
    ] {
        assert_eq!(OomCounts::parse(text), None, "{:?}", String::from_utf8_lossy(text));
    }
}

/// A watch that begins at `kills`, and one look at `counts`.
fn look(kills: u64, counts: Option<OomCounts>, child: ChildAtLook) -> Seen {
    OomWatch::new(self::counts(kills)).look(counts, || child, Instant::now())
}

#[test]
fn a_sigkill_that_was_counted_is_the_childs() {
    let killed = ChildAtLook::Killed { by_castoff: false };
    let seen = look(5, counts(6), killed);
    assert_eq!(seen, Seen { kills: vec![kill(1, Victim::Child)], is_childs_end: true });
    let seen = look(5, counts(8), killed);
    let kills = vec![kill(1, Victim::Child), kill(2, Victim::Descendant)];
    assert_eq!(seen, Seen { kills, is_childs_end: true });
    // Somebody's own SIGKILL.
    assert_eq!(look(5, counts(5), killed), Seen::default());
    assert_eq!(look(5, None, killed), Seen::default());
}

#[test]
fn while_the_child_runs_it_is_a_descendant() {
    let seen = look(0, counts(2), ChildAtLook::Unharmed);
    assert_eq!(seen, Seen { kills: vec![kill(2, Victim::Descendant)], is_childs_end: false });
}

#[test]
fn what_is_counted_after_castoffs_own_kill_is_another() {
    let by_castoff = ChildAtLook::Killed { by_castoff: true };
    for child in [ChildAtLook::Struck, by_castoff] {
        let seen = look(0, counts(1), child);
        assert_eq!(seen.kills, [kill(1, Victim::Descendant)], "{child:?}");
        assert!(!seen.is_childs_end, "{child:?}");
    }
}

#[test]
fn a_kill_that_is_seen_first_waits_for_the_childs_end() {
    let now = Instant::now();
    let mut watch = OomWatch::new(counts(0));
    assert_eq!(watch.look(counts(1), || ChildAtLook::Ending, now), Seen::default());
    assert_eq!(watch.look(counts(1), || ChildAtLook::Ending, now), Seen::default());
    let killed = || ChildAtLook::Killed { by_castoff: false };
    let seen = watch.look(counts(1), killed, now);
    assert_eq!(seen, Seen { kills: vec![kill(1, Victim::Child)], is_childs_end: true });
    assert_eq!(watch.look(counts(1), || ChildAtLook::Unharmed, now), Seen::default());
}

#[test]
fn the_oom_killer_came_before_castoff() {
    let now = Instant::now();
    let mut watch = OomWatch::new(counts(0));
    // The look that comes before the strike.
    assert_eq!(watch.look(counts(1), || ChildAtLook::Ending, now), Seen::default());
    let seen = watch.look(counts(2), || ChildAtLook::Struck, now);
    assert_eq!(seen.kills, [kill(1, Victim::Descendant)]);
    let seen = watch.look(counts(2), || ChildAtLook::Killed { by_castoff: true }, now);
    assert_eq!(seen, Seen { kills: vec![kill(1, Victim::Child)], is_childs_end: true });
}

#[test]
fn a_child_that_only_seems_to_end_holds_nothing_back_for_ever() {
    let now = Instant::now();
    let mut watch = OomWatch::new(counts(0));
    assert_eq!(watch.look(counts(1), || ChildAtLook::Ending, now), Seen::default());
    let seen = watch.look(counts(1), || ChildAtLook::Ending, now + ENDING_TIME);
    assert_eq!(seen.kills, [kill(1, Victim::Descendant)]);
}

#[test]
fn a_child_that_ends_otherwise_was_no_victim() {
    let now = Instant::now();
    let mut watch = OomWatch::new(counts(0));
    assert_eq!(watch.look(counts(1), || ChildAtLook::Ending, now), Seen::default());
    let seen = watch.look(counts(1), || ChildAtLook::Unharmed, now);
    assert_eq!(seen, Seen { kills: vec![kill(1, Victim::Descendant)], is_childs_end: false });
}

#[test]
fn a_group_is_told_as_one() {
    let by_counter = OomCounts { kills: 3, group_kills: 1, is_killed_whole: false };
    let by_setting = OomCounts { kills: 3, group_kills: 0, is_killed_whole: true };
    for counts in [by_counter, by_setting] {
        let seen = look(0, Some(counts), ChildAtLook::Killed { by_castoff: false });
        assert_eq!(seen, Seen { kills: vec![kill(3, Victim::Group)], is_childs_end: true });
        let seen = look(0, Some(counts), ChildAtLook::Unharmed);
        assert_eq!(seen, Seen { kills: vec![kill(3, Victim::Group)], is_childs_end: false });
    }
}

#[test]
fn what_was_counted_before_the_start_is_nobodys() {
    let mut watch = OomWatch::new(None);
    let unharmed = || ChildAtLook::Unharmed;
    assert_eq!(watch.look(counts(9), unharmed, Instant::now()), Seen::default());
    assert_eq!(watch.look(None, unharmed, Instant::now()), Seen::default());
    assert_eq!(watch.look(counts(10), unharmed, Instant::now()).kills.len(), 1);
    // Another group.
    assert_eq!(watch.look(counts(2), unharmed, Instant::now()), Seen::default());
    assert_eq!(watch.look(counts(3), unharmed, Instant::now()).kills.len(), 1);
}

fn any_child() -> impl Strategy<Value = ChildAtLook> {
    prop_oneof![
        Just(ChildAtLook::Unharmed),
        Just(ChildAtLook::Ending),
        Just(ChildAtLook::Struck),
        any::<bool>().prop_map(|by_castoff| ChildAtLook::Killed { by_castoff }),
    ]
}

proptest! {
    #[test]
    fn each_kill_is_told_once(
        looks in prop::collection::vec((0..4_u64, any::<bool>(), any_child(), 0..20_u64), 0..40)
    ) {
        let mut now = Instant::now();
        let mut watch = OomWatch::new(counts(0));
        let (mut kills, mut told) = (0, 0);
        for (more, is_killed_whole, child, seconds) in looks {
            kills += more;
            now += Duration::from_secs(seconds);
            let counts = OomCounts { kills, group_kills: 0, is_killed_whole };
            let seen = watch.look(Some(counts), || child, now);
            told += seen.kills.iter().map(|kill| kill.count).sum::<u64>();
            let of_child = seen.kills.iter().filter(|kill| kill.victim == Victim::Child);
            prop_assert!(of_child.clone().all(|kill| kill.count == 1));
            prop_assert!(of_child.count() <= usize::from(seen.is_childs_end));
            prop_assert!(seen.kills.iter().all(|kill| kill.count > 0));
            prop_assert!(told <= kills);
        }
        let last = watch.look(counts(kills), || ChildAtLook::Unharmed, now);
        told += last.kills.iter().map(|kill| kill.count).sum::<u64>();
        prop_assert_eq!(told, kills);
    }

    #[test]
    fn no_text_is_too_odd(text in any::<Vec<u8>>()) {
        let _ = OomCounts::parse(&text);
    }
}
