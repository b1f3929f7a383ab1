//! Names of services in those of Pods, and attributes that every SDK decodes.

use std::ffi::CString;

use super::*;
use proptest::prelude::*;

fn identity(pod: Option<&str>, namespace: Option<&str>, node: Option<&str>) -> Identity {
    let own = |name: Option<&str>| name.map(str::to_owned);
    Identity { pod: own(pod), namespace: own(namespace), node: own(node) }
}

/// What is exported and what is not, with its reason.
fn told(identity: &Identity, environment: &[&str]) -> Vec<String> {
    let environment: Vec<_> = environment.iter().map(|it| CString::new(*it).unwrap()).collect();
    let surroundings = Surroundings { environment: &environment, command: &[] };
    let Exports { exports, withheld } = exports(identity, &surroundings);
    assert!(exports.iter().all(|export| export.change == Change::Added));
    let exports = exports.iter().map(|it| format!("{}={} ({})", it.name, it.value, it.why));
    let withheld = withheld.iter().map(|it| format!("no {} ({})", it.name, it.why));
    exports.chain(withheld).collect()
}

#[test]
fn a_pod_that_is_known_is_told_by_the_names_of_the_conventions() {
    let whole = identity(Some("web-7d4b9c6f5d-x2x9z"), Some("shop"), Some("node-1"));
    assert_eq!(
        told(&whole, &["OTEL_SERVICE_NAMES=x", "PATH=/bin"]),
        [
            "OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=web-7d4b9c6f5d-x2x9z,k8s.namespace.name=shop,\
             service.namespace=shop,k8s.node.name=node-1 (from POD_NAME, POD_NAMESPACE, NODE_NAME)",
            "OTEL_SERVICE_NAME=web (POD_NAME without the suffixes of a Deployment's Pods)",
        ]
    );
    assert_eq!(
        told(&identity(None, None, Some("node-1")), &[]),
        [
            "OTEL_RESOURCE_ATTRIBUTES=k8s.node.name=node-1 (from NODE_NAME)",
            "no OTEL_SERVICE_NAME (POD_NAME is not set)",
        ]
    );
    assert_eq!(told(&Identity::default(), &[]), [""; 0]);
}

#[test]
fn what_is_set_is_never_touched() {
    let web = identity(Some("web-0"), None, None);
    let (attributes, name) = (
        "OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=web-0 (from POD_NAME)",
        "OTEL_SERVICE_NAME=web (POD_NAME without the ordinal of a StatefulSet's Pod)",
    );
    assert_eq!(told(&web, &[]), [attributes, name]);
    for value in ["x", ""] {
        let name = format!("OTEL_SERVICE_NAME={value}");
        let expected = [attributes, "no OTEL_SERVICE_NAME (is set already)"];
        assert_eq!(told(&web, &[&name]), expected, "{name}");
    }
    for value in ["", "a=b", "xservice.name=a,service.names=b", "a=service.name"] {
        let attributes = format!("OTEL_RESOURCE_ATTRIBUTES={value}");
        let expected = [name, "no OTEL_RESOURCE_ATTRIBUTES (is set already)"];
        assert_eq!(told(&web, &[&attributes]), expected, "{attributes}");
    }
    for value in ["service.name=x", "a=b, service.name = x", "service.name="] {
        let attributes = format!("OTEL_RESOURCE_ATTRIBUTES={value}");
        let expected = [
            "no OTEL_RESOURCE_ATTRIBUTES (is set already)",
            "no OTEL_SERVICE_NAME (service.name is in OTEL_RESOURCE_ATTRIBUTES)",
        ];
        assert_eq!(told(&web, &[&attributes]), expected, "{attributes}");
    }
}

#[test]
fn the_service_is_what_has_made_the_pod() {
    for (pod, service) in [
        // Deployments: the hash is 32 bits in decimal, each digit one of ten characters.
        ("web-7d4b9c6f5d-x2x9z", "web"),
        ("payment-backend-66b6c48dd5-vvwxz", "payment-backend"),
        ("web-2-5d59d67564-b5b5b", "web-2"),
        ("myapp-7f8bd-7d4b9c6f5d-x2x9z", "myapp-7f8bd"),
        // DaemonSets, Jobs, bare ReplicaSets, Indexed Jobs.
        ("fluent-bit-x2x9z", "fluent-bit"),
        ("redis-6-x2x9z", "redis-6"),
        ("import-20240115-x2x9z", "import-20240115"),
        ("train-3-24567", "train-3"),
        ("web-7g4b9c6f5d-x2x9z", "web-7g4b9c6f5d"),
        // CronJobs.
        ("backup-29437920-x2x9z", "backup"),
        ("backup-2-29437920-x2x9z", "backup-2"),
        // StatefulSets.
        ("kafka-0", "kafka"),
        ("kafka-broker-12", "kafka-broker"),
        // Nobody's, or not to be told apart.
        ("web", "web"),
        ("x2x9z", "x2x9z"),
        ("-x2x9z", "-x2x9z"),
        ("web-", "web-"),
        ("my-nginx", "my-nginx"),
        ("web-007", "web-007"),
        ("report-20240115", "report-20240115"),
        ("web-x1x9z", "web-x1x9z"),
        ("web-x2x9", "web-x2x9"),
        ("web-7d4b9c6f5d", "web-7d4b9c6f5d"),
        // Cut, since a name has 63 characters at most.
        (
            "a-name-of-forty-seven-characters-and-not-a-few-7d4b9c6fx2x9z",
            "a-name-of-forty-seven-characters-and-not-a-few-7d4b9c6fx2x9z",
        ),
        ("ünüblich-0", "ünüblich"),
        ("", ""),
    ] {
        assert_eq!(service_name(pod).0, service, "{pod}");
    }
}

#[test]
fn values_are_encoded_so_that_nobody_mistakes_them() {
    assert_eq!(encoded("web-0.A_z~9"), "web-0.A_z~9");
    assert_eq!(encoded("a,b=c;d%e+f \"\\é"), "a%2Cb%3Dc%3Bd%25e%2Bf%20%22%5C%C3%A9");
}

/// Kubernetes' own encoding of a hash.
fn safe_encoded(hash: u32) -> String {
    let character = |byte: u8| char::from(RANDOM[usize::from(byte) % RANDOM.len()]);
    hash.to_string().bytes().map(character).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_deployment_is_found(
        name in "[a-z][a-z0-9-]{0,20}[a-z]",
        hash in 1_000_000..=u32::MAX,
        suffix in "[bcdfghjklmnpqrstvwxz2456789]{5}",
    ) {
        let pod = format!("{name}-{}-{suffix}", safe_encoded(hash));
        prop_assert_eq!(service_name(&pod).0, name);
    }

    #[test]
    fn any_name_gives_a_beginning_of_it(pod in any::<String>()) {
        let service = service_name(&pod).0;
        prop_assert!(pod.starts_with(service));
        prop_assert_eq!(service.is_empty(), pod.is_empty());
    }

    #[test]
    fn any_value_comes_back(value in any::<String>()) {
        let encoded = encoded(&value);
        prop_assert!(!encoded.contains([',', '=', ';', ' ', '+', '"', '\\']) && encoded.is_ascii());
        let mut parts = encoded.split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(part[2..].bytes());
        }
        prop_assert_eq!(bytes, value.into_bytes());
    }
}
