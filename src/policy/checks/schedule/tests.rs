//! The schedule under a virtual clock: levels, thresholds, and any history.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules(name: &str, level: Level, target: Target) -> CheckRules {
    CheckRules {
        name: name.to_owned(),
        level,
        target,
        period: 5 * SECOND,
        timeout: SECOND,
        failures: 3,
        successes: 1,
    }
}

fn listen(name: &str, level: Level) -> CheckRules {
    rules(name, level, Target::Listen(80))
}

fn bad() -> Result<(), String> {
    Err("refused".to_owned())
}

/// The numbers of what is due, in order, all of it begun.
fn all_due(checks: &mut Checks, now: Instant) -> Vec<usize> {
    checks.due(now, usize::MAX)
}

#[test]
fn without_checks_a_child_is_ready_at_once() {
    let now = Instant::now();
    let mut checks = Checks::new(Vec::new(), 1);
    assert!(checks.may_start() && !checks.is_child_ready());
    checks.child_started(now);
    assert!(checks.is_child_ready() && checks.next_deadline().is_none());
}

#[test]
fn the_levels_begin_in_their_order() {
    let now = Instant::now();
    let mut checks = Checks::new(
        vec![
            listen("live", Level::Live),
            listen("ready", Level::Ready),
            listen("startup", Level::Startup),
            listen("database", Level::Dependency),
            listen("wait", Level::Wait),
            rules("notify", Level::Ready, Target::Notify),
        ],
        1,
    );
    checks.wait(now);
    assert_eq!(all_due(&mut checks, now), [4]);
    assert!(!checks.may_start());
    assert!(checks.finished(4, Ok(()), now).is_some_and(|change| change.is_up));
    assert!(checks.may_start() && checks.next_deadline().is_none());

    checks.child_started(now);
    assert_eq!(all_due(&mut checks, now), [2]);
    assert!(checks.finished(2, Ok(()), now).is_some());
    // The child has not said READY=1.
    assert!(checks.next_deadline().is_none() && !checks.has_started());
    assert!(checks.told(5, true, None, now).is_some());
    assert!(checks.has_started());
    assert_eq!(all_due(&mut checks, now), [0, 1, 3]);
    assert!(!checks.is_child_ready());
    assert!(checks.finished(1, Ok(()), now).is_some());
    // A dependency gates readiness, but the child is ready.
    assert!(checks.is_child_ready());
    assert!(checks.finished(3, bad(), now).is_some_and(|change| !change.is_up));
    let reports = checks.reports();
    let is_up: Vec<_> = reports.iter().map(|report| report.is_up).collect();
    assert_eq!(is_up, [true, true, true, false, true, true]);
    assert!(reports[5].durations.is_none());
    assert_eq!(reports[1].durations.map(|runs| runs.cumulative()[0]), Some(1));
}

#[test]
fn a_verdict_changes_at_its_threshold() {
    let mut now = Instant::now();
    let check = CheckRules { successes: 2, ..listen("ready", Level::Ready) };
    let mut checks = Checks::new(vec![check], 1);
    checks.child_started(now);
    let mut run = |result: Result<(), String>, checks: &mut Checks| {
        now = checks.next_deadline().expect("it goes on");
        assert_eq!(checks.due(now, usize::MAX), [0]);
        checks.finished(0, result, now).map(|change| (change.is_up, change.reason))
    };
    // Why it is not ready from the beginning is told once.
    assert_eq!(run(bad(), &mut checks), Some((false, Some("refused".to_owned()))));
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(Ok(()), &mut checks), None);
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(Ok(()), &mut checks), None);
    assert_eq!(run(Ok(()), &mut checks), Some((true, None)));
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(Ok(()), &mut checks), None);
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(bad(), &mut checks), None);
    assert_eq!(run(bad(), &mut checks), Some((false, Some("refused".to_owned()))));
    assert_eq!(run(Ok(()), &mut checks), None);
    assert_eq!(run(Ok(()), &mut checks), Some((true, None)));
}

#[test]
fn another_reason_is_told_but_not_without_end() {
    let mut now = Instant::now();
    let mut checks = Checks::new(vec![listen("ready", Level::Ready)], 1);
    checks.child_started(now);
    let mut run = |result: Result<(), String>| {
        now = checks.next_deadline().expect("it goes on");
        assert_eq!(checks.due(now, usize::MAX), [0]);
        checks.finished(0, result, now)
    };
    let mut told = 0;
    for nth in 0..100 {
        for _ in 0..2 {
            told += u32::from(run(Err(format!("since {nth} s"))).is_some());
        }
    }
    assert_eq!(told, REASONS_MAX);
    assert!(run(Ok(())).is_some());
    for reason in ["refused", "refused"] {
        assert_eq!(run(Err(reason.to_owned())), None, "it is up still");
    }
    assert!(run(bad()).is_some_and(|change| change.is_new));
    assert!(run(bad()).is_none());
    assert!(run(Err("reset".to_owned())).is_some_and(|change| !change.is_new));
}

#[test]
fn what_has_never_passed_is_repeated_soon_and_then_ever_later() {
    let mut now = Instant::now();
    let mut checks = Checks::new(vec![listen("ready", Level::Ready)], 7);
    checks.child_started(now);
    let mut gaps = Vec::new();
    for _ in 0..9 {
        let at = checks.next_deadline().expect("it goes on");
        gaps.push((at - now).as_secs_f64());
        now = at;
        assert_eq!(checks.due(now, usize::MAX), [0]);
        let _ = checks.finished(0, bad(), now);
    }
    for (gap, expected) in gaps.iter().zip([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]) {
        assert!((expected * 0.9..=expected * 1.1).contains(gap), "{gaps:?}");
    }
}

#[test]
fn the_shortest_period_leaves_a_pause_between_runs() {
    for result in [Ok(()), bad()] {
        for level in [Level::Live, Level::Ready] {
            let check = CheckRules { period: Duration::from_nanos(1000), ..listen("check", level) };
            let mut now = Instant::now();
            let mut checks = Checks::new(vec![check], 3);
            checks.child_started(now);
            for _ in 0..9 {
                assert_eq!(checks.due(now, usize::MAX), [0]);
                now += Duration::from_millis(3);
                let _ = checks.finished(0, result.clone(), now);
                let next = checks.next_deadline().expect("it goes on");
                assert!(next >= now + PAUSE, "{level:?}");
                now = next;
            }
        }
    }
}

#[test]
fn of_more_than_there_is_time_for_each_has_its_turn() {
    let now = Instant::now();
    let often = |nth: i32| CheckRules { period: PAUSE, ..listen(&nth.to_string(), Level::Live) };
    let many = (0..5).map(often).collect();
    let mut checks = Checks::new(many, 1);
    checks.child_started(now);
    assert_eq!(checks.due(now, 2), [0, 1]);
    // They are due again long before the others have been.
    for nth in [1, 0] {
        assert_eq!(checks.finished(nth, Ok(()), now), None);
    }
    assert_eq!(checks.due(now + SECOND, 2), [2, 3]);
    assert_eq!(checks.due(now + SECOND, 1), [4]);
    let mut again = checks.due(now + SECOND, 2);
    again.sort_unstable();
    assert_eq!(again, [0, 1]);
}

#[test]
fn at_rest_nothing_runs_and_nothing_counts() {
    let now = Instant::now();
    let live = CheckRules { failures: 1, ..listen("live", Level::Live) };
    let mut checks = Checks::new(vec![live, rules("notify", Level::Ready, Target::Notify)], 1);
    checks.child_started(now);
    assert!(checks.told(1, true, None, now).is_some());
    assert_eq!(checks.due(now, usize::MAX), [0]);
    checks.rest();
    assert_eq!(checks.finished(0, bad(), now), None);
    assert_eq!(checks.told(1, false, bad().err(), now), None);
    assert!(checks.next_deadline().is_none());
    assert!(checks.reports().iter().all(|report| report.is_up));
    // Another child is another story.
    checks.child_started(now);
    assert!(checks.reports()[0].is_up && !checks.reports()[1].is_up);
    assert!(checks.due(now, usize::MAX).is_empty() && !checks.has_started());
}

#[test]
fn what_the_start_waits_for_is_asked_every_second() {
    let mut now = Instant::now();
    let mut checks = Checks::new(vec![listen("wait", Level::Wait)], 7);
    checks.wait(now);
    for _ in 0..20 {
        let at = checks.next_deadline().expect("it goes on");
        assert!(at - now <= SECOND * 11 / 10);
        now = at;
        assert_eq!(checks.due(now, usize::MAX), [0]);
        let _ = checks.finished(0, bad(), now);
    }
}

#[test]
fn between_two_children_nobody_is_taken_for_dead() {
    let now = Instant::now();
    let failing = |level| CheckRules { failures: 1, ..listen("x", level) };
    let mut checks = Checks::new(vec![failing(Level::Live), failing(Level::Ready)], 1);
    checks.child_started(now);
    assert_eq!(checks.due(now, usize::MAX), [0, 1]);
    for nth in [0, 1] {
        assert!(checks.finished(nth, bad(), now).is_some());
    }
    checks.child_ended(now);
    let is_up: Vec<_> = checks.reports().iter().map(|report| report.is_up).collect();
    assert_eq!(is_up, [true, false]);
    assert!(checks.next_deadline().is_none());
}

fn any_level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Live),
        Just(Level::Ready),
        Just(Level::Startup),
        Just(Level::Dependency),
        Just(Level::Wait),
    ]
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![Just(Target::Listen(80)), Just(Target::Notify), Just(Target::Watchdog(SECOND)),]
}

/// What happens next: a step in time, and what becomes of which check.
#[derive(Clone, Debug)]
enum Step {
    Run,
    End(usize, bool),
    Told(usize, bool),
    Restart,
    Rest,
    Wait,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Run),
        6 => (0..6_usize, any::<bool>()).prop_map(|(nth, good)| Step::End(nth, good)),
        2 => (0..6_usize, any::<bool>()).prop_map(|(nth, good)| Step::Told(nth, good)),
        1 => Just(Step::Restart),
        1 => Just(Step::Rest),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn in_any_history_runs_never_pile_up_and_levels_keep_their_order(
        checks in vec((any_level(), any_target(), 1..4_u32, 1..4_u32, 1..20_u32), 1..6),
        steps in vec((any_step(), 0..6_000_u64), 0..60),
        seed: u64,
    ) {
        let rules: Vec<_> = checks
            .into_iter()
            .enumerate()
            .map(|(nth, (level, target, failures, successes, period))| CheckRules {
                failures,
                successes,
                period: SECOND * period,
                ..rules(&nth.to_string(), level, target)
            })
            .collect();
        let mut checks = Checks::new(rules.clone(), seed);
        let mut now = Instant::now();
        let mut under_way = vec![false; rules.len()];
        for (step, millis) in steps {
            now += Duration::from_millis(millis);
            let before = checks.reports();
            let change = match step {
                Step::Run => {
                    for nth in checks.due(now, usize::MAX) {
                        prop_assert!(!std::mem::replace(&mut under_way[nth], true), "it piles up");
                        prop_assert!(is_asked(&rules[nth].target));
                        let level = rules[nth].level;
                        let is_running = checks.has_started();
                        let is_its_turn = matches!(level, Level::Startup | Level::Wait) != is_running;
                        prop_assert!(is_its_turn, "{level:?}");
                    }
                    None
                }
                Step::End(nth, good) if nth < rules.len() => {
                    let was_under_way = std::mem::take(&mut under_way[nth]);
                    let change = checks.finished(nth, if good { Ok(()) } else { bad() }, now);
                    prop_assert!(was_under_way || change.is_none());
                    if checks.stage == Stage::Running && before.len() == rules.len() {
                        // Startup has passed: what ran then and goes on may run again.
                        under_way.iter_mut().zip(&rules).for_each(|(is, rules)| {
                            *is &= !matches!(rules.level, Level::Startup);
                        });
                    }
                    change
                }
                Step::Told(nth, good) if nth < rules.len() && !is_asked(&rules[nth].target) => {
                    checks.told(nth, good, bad().err().filter(|_| !good), now)
                }
                Step::Restart => {
                    checks.child_started(now);
                    under_way.fill(false);
                    None
                }
                Step::Rest => {
                    checks.rest();
                    under_way.fill(false);
                    None
                }
                Step::Wait => {
                    checks.wait(now);
                    under_way.fill(false);
                    None
                }
                Step::End(..) | Step::Told(..) => None,
            };
            if let Some(change) = change {
                let nth: usize = change.check.parse().expect("a number");
                prop_assert_eq!(checks.reports()[nth].is_up, change.is_up);
                prop_assert_eq!(change.is_new, change.is_up != before[nth].is_up);
                prop_assert!(change.is_new || !change.is_up);
            }
            // Whatever is not under way and has its turn has a time.
            if checks.is_child_ready() {
                for (nth, rules) in rules.iter().enumerate() {
                    let check = &checks.checks[nth];
                    if check.runs_in(Stage::Running) {
                        prop_assert!(check.next_at.is_some() != check.begun_at.is_some(), "{rules:?}");
                    }
                }
            }
        }
    }
}
