//! A restart that was asked for: a stop with all its steps, and a start.

use super::*;

fn restart() -> Event {
    Event::RestartRequested(Signal::TERM)
}

#[test]
fn a_restart_that_was_asked_for_is_a_stop_and_a_start() {
    let mut world = World::serving_with(DRAIN, |rules| {
        rules.hooks.has_pre_stop = true;
        rules.hooks.has_post_stop = true;
    });
    assert_eq!(world.on(restart()), [Action::StartHook(Hook::PreStop)]);
    assert!(!world.machine.is_ready() && world.machine.is_renewing());
    assert_eq!(world.machine.stop_requested_at(), None);
    world.on(hook_exited(0, false));
    assert_eq!(world.step(), Some(tell(Signal::TERM)));
    assert_eq!(world.elapsed(), DRAIN);
    world.on(restart());
    let swept = world.on(exited(143, false));
    assert_eq!(swept[0], Action::SignalTree(Signal::TERM, Scope::Descendants));
    assert_eq!(world.on(Event::TreeGone), [Action::StartChild]);
    assert!(!world.machine.is_renewing() && world.machine.child.is_up);
    assert_eq!(world.machine.phase(), PhaseName::Starting);
    assert_eq!(world.machine.late_arrivals(), None);
    world.on(Event::ChildReady);
    // And once more, and then for good.
    world.on(restart());
    world.on(hook_exited(0, false));
    world.step();
    assert_eq!(world.on(exited(0, true)), [Action::StartChild]);
    world.on(stop());
    world.on(hook_exited(0, false));
    assert_eq!(world.on(exited(7, true)), [Action::StartHook(Hook::PostStop)]);
    assert_eq!(world.on(hook_exited(0, true)), [Action::Exit(7)]);
}

#[test]
fn a_restart_is_not_asked_for_where_none_runs() {
    let mut world = World::with(DRAIN, |rules| rules.hooks.has_pre_start = true);
    assert_eq!(world.on(restart()), []);
    assert!(!world.machine.is_renewing());
    let mut stopping = World::serving(DRAIN);
    stopping.on(stop());
    assert_eq!(stopping.on(restart()), []);
    assert_eq!(stopping.on(exited(0, true)), [Action::Exit(0)]);
}

#[test]
fn a_stop_takes_the_place_of_a_restart() {
    let mut draining = World::serving(DRAIN);
    draining.on(restart());
    draining.after(DRAIN / 2);
    assert_eq!(draining.on(Event::StopRequested(Signal::INT)), []);
    // The drain begins anew, for traffic has to go elsewhere only now.
    assert_eq!(draining.step(), Some(tell(Signal::INT)));
    assert_eq!(draining.elapsed(), DRAIN / 2 + DRAIN);
    assert_eq!(draining.on(exited(143, true)), [Action::Exit(143)]);

    let mut told = World::serving_with(Duration::ZERO, |rules| rules.stopped_exit_code = Some(0));
    assert_eq!(told.on(restart()), tell(Signal::TERM));
    let kill_at = told.machine.kill_at();
    told.after(GRACE / 4);
    assert_eq!(told.on(stop()), [], "it has been told");
    assert_eq!(told.machine.kill_at(), kill_at, "and when it will be killed");
    assert_eq!(told.on(exited(143, true)), [Action::Exit(0)]);

    let mut swept = World::serving_with(Duration::ZERO, |rules| rules.stopped_exit_code = Some(0));
    swept.on(restart());
    swept.on(exited(143, false));
    assert_eq!(swept.on(stop()), []);
    assert_eq!(swept.on(Event::TreeGone), [Action::Exit(0)]);
}

#[test]
fn a_child_that_cannot_be_killed_is_not_started_beside() {
    let mut world = World::serving(Duration::ZERO);
    world.on(restart());
    world.run_out();
    assert_eq!(world.exit_code(), Some(137));
    assert!(world.elapsed() < GRACE);
}
