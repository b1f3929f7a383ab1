//! What OpenTelemetry's SDKs in the child are told of the Pod, when it is asked
//! for: in the environment, in the log, on `/statusz` and in `explain`.

use std::fs;

use serde_json::{Value, json};

use crate::explain::{explain, page, told};
use crate::limits::{environment, on_fixture};
use crate::support::{Castoff, Place, Scratch, in_both_places, wait_until};

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SERVICE: &str = "OTEL_SERVICE_NAME";

const IDENTITY: [(&str, &str); 3] =
    [("POD_NAME", "web-7d4b9c6f5d-x2x9z"), ("POD_NAMESPACE", "shop"), ("NODE_NAME", "node-1")];

/// What follows from it.
const OF_IDENTITY: &str = "k8s.pod.name=web-7d4b9c6f5d-x2x9z,k8s.namespace.name=shop,\
                           service.namespace=shop,k8s.node.name=node-1";

/// Neither limits nor anything else that is exported.
fn castoff(place: Place) -> Castoff {
    Castoff::new(place).env("CASTOFF_SIZING", "off").env("CASTOFF_DRAIN_DELAY", "0")
}

fn asked_for(place: Place) -> Castoff {
    let castoff = castoff(place).env("CASTOFF_OTEL_RESOURCE", "on");
    IDENTITY.into_iter().fold(castoff, |castoff, (name, value)| castoff.env(name, value))
}

fn shown(name: &str) -> String {
    format!("echo \"{name}=${{{name}-unset}}\"")
}

in_both_places! {
    fn the_child_is_told_of_its_pod(place) {
        let script = format!("{}; {}; exec sleep 600", shown(ATTRIBUTES), shown(SERVICE));
        let mut castoff = asked_for(place).script(&script).start();
        castoff.stdout().wait_for_line(&format!("{ATTRIBUTES}={OF_IDENTITY}"));
        castoff.stdout().wait_for_line(&format!("{SERVICE}=web"));
        castoff.until_serving();
        let statusz = castoff.get("/statusz").body;
        let names = format!("[exported variables]\n{ATTRIBUTES}\n{SERVICE}\n");
        assert!(statusz.contains(&names), "{statusz}");
        assert!(!statusz.contains("x2x9z"), "{statusz}");
        castoff.signal(libc::SIGTERM);
        castoff.wait();
        let events = castoff.log().events();
        let exported = |name: &str| -> Vec<_> {
            let mine = events.iter().filter(|it| it["event"] == "env_exported" && it["name"] == name);
            mine.map(|event| [event["value"].clone(), event["why"].clone()]).collect()
        };
        let why = "from POD_NAME, POD_NAMESPACE, NODE_NAME";
        assert_eq!(exported(ATTRIBUTES), [[json!(OF_IDENTITY), json!(why)]]);
        let why = "POD_NAME without the suffixes of a Deployment's Pods";
        assert_eq!(exported(SERVICE), [[json!("web"), json!(why)]]);
    }

    fn what_is_set_stays_as_it_is(place) {
        for (name, value, other) in [
            (ATTRIBUTES, "a=b", format!("{SERVICE}=web")),
            (ATTRIBUTES, "", format!("{SERVICE}=web")),
            (ATTRIBUTES, "a=b, service.name=mine", format!("{SERVICE}=unset")),
            (SERVICE, "mine", format!("{ATTRIBUTES}={OF_IDENTITY}")),
            (SERVICE, "", format!("{ATTRIBUTES}={OF_IDENTITY}")),
        ] {
            let script = format!("{}; {}", shown(ATTRIBUTES), shown(SERVICE));
            let castoff = asked_for(place).env(name, value).script(&script).run();
            let lines = castoff.stdout().all();
            assert!(lines.contains(&format!("{name}={value}")), "{lines:?}");
            assert!(lines.contains(&other), "{lines:?}");
        }
    }

    fn it_is_not_done_unless_it_is_asked_for(place) {
        let castoff = IDENTITY.into_iter().fold(castoff(place), |it, (name, value)| it.env(name, value));
        let castoff = castoff.script(&format!("{}; {}", shown(ATTRIBUTES), shown(SERVICE))).run();
        let expected = [format!("{ATTRIBUTES}=unset"), format!("{SERVICE}=unset")];
        assert_eq!(castoff.stdout().all(), expected);
    }

    fn a_pod_that_is_not_known_is_a_warning(place) {
        let castoff = castoff(place).env("CASTOFF_OTEL_RESOURCE", "on").env("POD_NAME", "");
        let castoff = castoff.script(&format!("{}; {}", shown(ATTRIBUTES), shown(SERVICE))).run();
        let expected = [format!("{ATTRIBUTES}=unset"), format!("{SERVICE}=unset")];
        assert_eq!(castoff.stdout().all(), expected);
        let warning = castoff.log().wait_for_event("otel_not_completed");
        assert_eq!(warning["level"], "WARN");
        assert_eq!(warning["cause"], "POD_NAME, POD_NAMESPACE and NODE_NAME are not set");
    }

    fn hooks_and_checks_are_told_as_well(place) {
        let scratch = Scratch::new();
        let file = scratch.path("seen");
        let write = |who: &str| format!("/bin/sh -c 'echo {who} ${SERVICE} >> {file}'");
        let mut castoff = asked_for(place)
            .env("CASTOFF_PRE_START", write("hook"))
            .env("CASTOFF_READY_CHECK", format!("exec:{}", write("check")))
            .script("exec sleep 600")
            .start();
        scratch.wait_for_line("seen", "hook web");
        scratch.wait_for_line("seen", "check web");
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }

    fn each_start_finds_out_anew_what_is_set(place) {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("vars")).expect("a directory");
        let script = format!(
            "{}; [ -e $VARS/{SERVICE} ] && exec sleep 600; echo mine > $VARS/{SERVICE}; exit 1",
            shown(SERVICE)
        );
        let mut castoff = asked_for(place)
            .env("CASTOFF_ENV_DIR", scratch.path("vars"))
            .env("VARS", scratch.path("vars"))
            .env("CASTOFF_RESTART", "on-failure")
            .env("CASTOFF_RESTART_MIN", "1ms")
            .script(&script)
            .start();
        castoff.stdout().wait_for_line(&format!("{SERVICE}=web"));
        castoff.stdout().wait_for_line(&format!("{SERVICE}=mine"));
        wait_until("the exports are those of the new child", || {
            let statusz = castoff.get("/statusz").body;
            (statusz.contains(ATTRIBUTES) && !statusz.contains(SERVICE)).then_some(())
        });
        castoff.signal(libc::SIGTERM);
        castoff.wait();
    }
}

#[test]
fn odd_names_are_encoded_and_what_is_not_known_is_left_out() {
    let castoff = castoff(Place::Subreaper)
        .env("CASTOFF_OTEL_RESOURCE", "on")
        .env("POD_NAMESPACE", "a,b=c d%é");
    let (environment, castoff) = environment(castoff);
    let encoded = "a%2Cb%3Dc%20d%25%C3%A9";
    let expected = format!("k8s.namespace.name={encoded},service.namespace={encoded}");
    assert_eq!(environment.get(ATTRIBUTES), Some(&expected));
    assert_eq!(environment.get(SERVICE), None);
    let withheld = castoff.log().wait_for_event("env_withheld");
    assert_eq!([&withheld["name"], &withheld["why"]], [SERVICE, "POD_NAME is not set"]);
}

#[test]
fn it_stands_beside_what_follows_from_limits() {
    let castoff = on_fixture("v2_half_cpu").env("CASTOFF_OTEL_RESOURCE", "1");
    let (environment, _) = environment(castoff.env("POD_NAME", "kafka-0"));
    assert_eq!(environment.get(SERVICE).map(String::as_str), Some("kafka"));
    assert_eq!(environment.get("CASTOFF_CPUS").map(String::as_str), Some("0.5"));
}

#[test]
fn explain_tells_what_the_child_would_be_told() {
    let asked = || {
        let mut command = explain();
        command.env("CASTOFF_OTEL_RESOURCE", "on").env("CASTOFF_SIZING", "off");
        command
    };
    let named = || {
        let mut command = asked();
        command.envs(IDENTITY);
        command
    };
    let exports = page(named().env(SERVICE, "mine"));
    assert_eq!(
        exports["exports"],
        json!([{
            "name": ATTRIBUTES,
            "value": OF_IDENTITY,
            "why": "from POD_NAME, POD_NAMESPACE, NODE_NAME",
        }])
    );
    assert_eq!(exports["withheld"], json!([{ "name": SERVICE, "why": "is set already" }]));
    let text = told(&mut named());
    let line = "OTEL_SERVICE_NAME=web  POD_NAME without the suffixes of a Deployment's Pods";
    assert!(text.lines().any(|found| found == line), "{text}");
    let unknown = page(&mut asked());
    assert_eq!(unknown["exports"], json!([]));
    let warnings = unknown["warnings"].as_array().expect("a list");
    let cause =
        "cannot complete OTEL_* variables: POD_NAME, POD_NAMESPACE and NODE_NAME are not set";
    assert!(warnings.contains(&Value::from(cause)), "{warnings:?}");
}
