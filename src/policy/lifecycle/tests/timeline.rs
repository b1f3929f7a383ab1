//! The timeline that is told of a stop, against a stop of a child that never
//! obeys, under the virtual clock.

use proptest::prelude::*;

use super::*;
use crate::policy::timeline::{Request, Step, timeline};

fn steps_of(rules: &Rules) -> Vec<Step> {
    let request = Request { signal: Signal::TERM, to_group: false, is_serving: true };
    timeline(rules, request, Instant::now())
}

fn told(steps: &[Step]) -> Vec<(u64, &str, &str)> {
    let told = |step: &Step| u64::try_from(step.at.as_millis()).expect("no ages");
    steps.iter().map(|step| (told(step), step.phase.as_str(), step.what.as_str())).collect()
}

/// The stop of Kubernetes: 30 s, of which the drain takes 5.
fn usual() -> Rules {
    let s = Duration::from_secs;
    let stop_plan = StopPlan::new(s(30), DrainPlan::fixed(s(5)), s(2)).expect("it fits");
    Rules { stop_plan, ..rules(DrainPlan::fixed(DRAIN)) }
}

#[test]
fn the_timeline_names_each_step_of_a_stop() {
    let mut rules = usual();
    rules.hang_signal = Some(Signal::INT);
    assert_eq!(
        told(&steps_of(&rules)),
        [
            (0, "draining", "readiness off"),
            (5000, "stopping", "SIGTERM to the child"),
            (27000, "stopping", "SIGINT to whoever is left"),
            (27900, "stopping", "whoever is left is listed in the log"),
            (28000, "killing", "SIGKILL to whoever is left"),
            (29500, "exited", "castoff exits, whoever is left"),
            (30000, "exited", "the platform's SIGKILL"),
        ]
    );
}

#[test]
fn hooks_and_traffic_give_the_child_another_moment() {
    let mut rules = usual();
    rules.hooks.has_pre_stop = true;
    rules.hooks.has_post_stop = true;
    rules.hooks.timeout = Duration::from_secs(9);
    rules.stop_plan.drain.max = Duration::from_secs(20);
    rules.readiness_on_stop = ReadinessOnStop::AfterDrain;
    let steps = steps_of(&rules);
    let told = told(&steps);
    assert_eq!(told[0], (0, "draining", "the pre-stop hook starts"));
    assert_eq!(told[1], (9000, "draining", "SIGKILL to the pre-stop hook if it still runs"));
    let what = "readiness off, SIGTERM to the child, \
                from 5000 ms on once its traffic and the hook are over";
    assert_eq!(told[2], (20000, "stopping", what));
    assert_eq!(told[5], (29500, "sweeping", "SIGKILL to the post-stop hook if it still runs"));
    assert_eq!(told[6], (29750, "exited", "castoff exits, whoever is left"));
}

#[test]
fn the_child_is_told_at_once_where_nothing_drains() {
    let mut rules = usual();
    rules.rewrite.insert(Signal::TERM, None);
    let request = Request { signal: Signal::TERM, to_group: true, is_serving: false };
    let steps = timeline(&rules, request, Instant::now());
    let what = "nothing to the child's process group: SIGTERM is dropped";
    assert_eq!(told(&steps)[0], (0, "stopping", what));
    rules.stop_plan.drain = DrainPlan::fixed(Duration::ZERO);
    rules.stop_signal = StopSignal::Fixed(Signal::INT);
    let steps = steps_of(&rules);
    assert_eq!(told(&steps)[0], (0, "stopping", "readiness off, SIGINT to the child"));
    rules.readiness_on_stop = ReadinessOnStop::Never;
    let steps = steps_of(&rules);
    assert_eq!(told(&steps)[2], (28000, "killing", "readiness off, SIGKILL to whoever is left"));
}

/// A stop of a child that never obeys, told as the timeline tells it; and the
/// moments at which the phase or the readiness was another one.
struct Hopeless {
    world: World,
    phases: Vec<(Duration, PhaseName)>,
    unready_at: Option<Duration>,
}

impl Hopeless {
    fn run(rules: Rules, is_serving: bool) -> Self {
        let mut world = World::of(rules, vec![]);
        world.traffic = Some(Look { is_busy: true, ..QUIET });
        if is_serving {
            world.on(Event::ChildReady);
        }
        let _ = world.on(stop());
        let mut hopeless = Self { world, phases: vec![], unready_at: None };
        hopeless.note();
        while hopeless.world.step().is_some() {
            hopeless.note();
        }
        hopeless
    }

    fn note(&mut self) {
        let at = self.world.elapsed();
        self.phases.push((at, self.world.machine.phase()));
        if !self.world.machine.is_ready() {
            self.unready_at.get_or_insert(at);
        }
    }

    fn first(&self, is_it: impl Fn(&Action) -> bool) -> Option<Duration> {
        self.world.said.iter().find(|(_, said)| is_it(said)).map(|(at, _)| *at)
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let micros = |most: u64| (0..most).prop_map(Duration::from_micros);
    let time = move || prop_oneof![1 => Just(Duration::ZERO), 3 => micros(20_000_000)];
    let rest = prop_oneof![1 => micros(5000), 3 => micros(20_000_000)];
    let readiness = prop_oneof![
        Just(ReadinessOnStop::Immediate),
        Just(ReadinessOnStop::AfterDrain),
        Just(ReadinessOnStop::Never),
    ];
    let times = (time(), time(), time(), rest, time());
    (times, readiness, any::<[bool; 4]>()).prop_map(
        |((delay, more, reserve, rest, timeout), readiness, [pre, post, hang, dropped])| {
            let (least, quiet) = (Duration::from_micros(1), Duration::from_secs(1));
            let drain = DrainPlan { delay, max: delay + more, quiet };
            let grace = drain.max + reserve + rest + least;
            let mut rules = rules(DrainPlan::fixed(DRAIN));
            rules.stop_plan = StopPlan::new(grace, drain, reserve).expect("it fits");
            rules.readiness_on_stop = readiness;
            rules.hooks.has_pre_stop = pre;
            rules.hooks.has_post_stop = post;
            rules.hooks.timeout = timeout + least;
            rules.hang_signal = hang.then_some(Signal::INT);
            if dropped {
                rules.rewrite.insert(Signal::TERM, None);
            }
            rules
        },
    )
}

proptest! {
    #[test]
    fn the_timeline_is_what_a_child_that_never_obeys_sees(
        rules in any_rules(),
        is_serving: bool,
    ) {
        let request = Request { signal: Signal::TERM, to_group: false, is_serving };
        let steps = timeline(&rules, request, Instant::now());
        let at = |what: &str| steps.iter().find(|s| s.what.contains(what)).map(|s| s.at);
        let run = Hopeless::run(rules.clone(), is_serving);

        prop_assert!(steps.is_sorted_by_key(|step| step.at));
        let tells = |said: &Action| matches!(said, Action::SignalChild(_));
        let is_told = at("SIGTERM to the child");
        prop_assert_eq!(run.first(tells), is_told);
        prop_assert_eq!(run.first(|said| *said == Action::KillHook), at("the pre-stop hook if"));
        let hangs = |said: &Action| matches!(said, Action::SendHangSignal(..));
        prop_assert_eq!(run.first(hangs), at("SIGINT to whoever"));
        let lists = |said: &Action| matches!(said, Action::ListSurvivors(..));
        prop_assert_eq!(run.first(lists), at("listed"));
        let kills = |said: &Action| matches!(said, Action::SignalTree(Signal::KILL, _));
        prop_assert_eq!(run.first(kills), at("SIGKILL to whoever"));
        let exited_at = run.first(|said| matches!(said, Action::Exit(_)));
        if rules.hooks.has_post_stop {
            prop_assert!(exited_at <= at("castoff exits"));
        } else {
            prop_assert_eq!(exited_at, at("castoff exits"));
        }
        if is_serving {
            prop_assert_eq!(run.unready_at, at("readiness off"));
        }
        // The last step of a moment has its phase.
        for (nth, step) in steps.iter().enumerate() {
            let is_last = steps.get(nth + 1).is_none_or(|next| next.at > step.at);
            let is_of_others = step.what.contains("platform") || step.what.contains("post-stop");
            let is_after_exit = Some(step.at) >= exited_at;
            if is_last && !is_of_others && !is_after_exit {
                let phase = run.phases.iter().rfind(|(at, _)| *at <= step.at);
                prop_assert_eq!(phase.map(|(_, phase)| *phase), Some(step.phase), "{:?}", step);
            }
        }
    }

    #[test]
    fn a_post_stop_hook_is_over_when_the_timeline_says_so(rules in any_rules()) {
        let rules = Rules { hooks: HookRules { has_post_stop: true, ..rules.hooks }, ..rules };
        let steps = steps_of(&rules);
        let at = |what: &str| steps.iter().find(|s| s.what.contains(what)).map(|s| s.at);
        let mut world = World::of(rules, vec![]);
        let _ = world.on(Event::ChildReady);
        let _ = world.on(stop());
        while world.machine.phase() != PhaseName::Killing {
            world.step();
        }
        let _ = world.on(exited(0, true));
        world.run_out();
        let hook_killed_at = world.said.iter().rfind(|(_, said)| *said == Action::KillHook);
        if let Some((killed_at, _)) = hook_killed_at
            && world.said_after(Action::StartHook(Hook::PostStop)).is_some()
        {
            prop_assert!(Some(*killed_at) <= at("post-stop hook"));
        }
        prop_assert!(Some(world.elapsed()) <= at("castoff exits"));
    }
}
