//! Strings of options: who decides, and what is appended to what.

use super::*;

const JAVA: &str = "JAVA_TOOL_OPTIONS";
const NODE: &str = "NODE_OPTIONS";

fn of(profile: Profile, environment: &[&str], command: &[&str]) -> Exports {
    found(&all_limits(), &sizing(&[profile]), &Program::default(), environment, command)
}

#[test]
fn a_heap_for_java_is_appended_to_what_does_not_decide() {
    for entry in ["JAVA_TOOL_OPTIONS=-Dx=y -javaagent:/a.jar", "JAVA_TOOL_OPTIONS=-Xms64m 'a b'"] {
        let found = of(Profile::Java, &[entry], &["java", "-jar", "app.jar"]);
        let export = found.exports.last().unwrap();
        assert_eq!((export.name, export.change), (JAVA, Change::Appended));
        // The user's part, which may hold a password, is not repeated.
        assert_eq!(export.value, "-XX:MaxRAMPercentage=75.0");
    }
    let found = of(Profile::Java, &["JDK_JAVA_OPTIONS=-Xss1m"], &["java", "-XX:+UseZGC"]);
    assert_eq!(found.exports.last().unwrap().change, Change::Added);
}

#[test]
fn a_users_decision_on_javas_heap_is_kept() {
    for option in [
        "-Xmx512m",
        "-mx512m",
        "-XX:MaxHeapSize=1g",
        "-XX:MaxRAMPercentage=50",
        "-XX:MaxRAMFraction=2",
        "-XX:MaxRAM=1g",
        "-XX:MinRAMPercentage=80",
        "-XX:+AggressiveHeap",
        "-XX:-UseContainerSupport",
        "-XX:VMOptionsFile=/x",
        "-XX:Flags=.hotspotrc",
        "'-Xmx512m'",
        "\"-Xmx512m\"",
    ] {
        for variable in
            [JAVA, "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS", "JAVA_OPTS"]
        {
            let entry = format!("{variable}=-Dx=y {option} -Dz");
            let found = of(Profile::Java, &[&entry], &["java"]);
            let why = format!("{variable} decides");
            assert_eq!(found.why_not(JAVA), Some(&*why), "{entry}");
        }
        for command in [&["java", option][..], &["sh", "-c", &format!("exec java {option} -jar a")]]
        {
            let found = of(Profile::Java, &[], command);
            assert_eq!(found.why_not(JAVA), Some("the command decides"), "{command:?}");
        }
    }
}

#[test]
fn nothing_is_appended_where_it_could_break_what_is_there() {
    let long = format!("JAVA_TOOL_OPTIONS={}", "x".repeat(1000));
    for (entry, why) in [
        ("JAVA_TOOL_OPTIONS=", "is set to nothing"),
        ("JAVA_TOOL_OPTIONS=  ", "is set to nothing"),
        ("JAVA_TOOL_OPTIONS=-Dx='a", "has a quote without its end"),
        ("JAVA_TOOL_OPTIONS=-Dx=\"it's", "has a quote without its end"),
        (&long, "is too long for one more in Java 8"),
    ] {
        assert_eq!(of(Profile::Java, &[entry], &[]).why_not(JAVA), Some(why), "{entry}");
    }
    for (entry, why) in [
        ("NODE_OPTIONS=", "is set to nothing"),
        ("NODE_OPTIONS=--require \"a", "has a quote without its end"),
        ("NODE_OPTIONS=\"a\\\"", "has a quote without its end"),
    ] {
        assert_eq!(of(Profile::Node, &[entry], &[]).why_not(NODE), Some(why), "{entry}");
    }
    // Longer than Java 8 reads anyway; balanced; of no meaning to Node.
    let longer = format!("JAVA_TOOL_OPTIONS={}", "x".repeat(2000));
    for entry in [&*longer, "JAVA_TOOL_OPTIONS=-Dx=\"it's\" 'a'"] {
        assert_eq!(of(Profile::Java, &[entry], &[]).why_not(JAVA), None, "{entry}");
    }
    for entry in ["NODE_OPTIONS=--require \"a\\\"b\"", "NODE_OPTIONS=it's", "NODE_OPTIONS=a\\\\"] {
        assert_eq!(of(Profile::Node, &[entry], &[]).why_not(NODE), None, "{entry}");
    }
}

#[test]
fn a_users_decision_on_nodes_heap_is_kept() {
    for option in [
        "--max-old-space-size=100",
        "--max_old_space_size=100",
        "--max-old_space-size 100",
        "--max-old-space-size-percentage=50",
        "--max-heap-size=100",
    ] {
        let entry = format!("NODE_OPTIONS=--no-warnings {option}");
        assert_eq!(of(Profile::Node, &[&entry], &[]).why_not(NODE), Some("NODE_OPTIONS decides"));
        let found = of(Profile::Node, &[], &["node", option, "x.js"]);
        assert_eq!(found.why_not(NODE), Some("the command decides"), "{option}");
    }
    let found = of(Profile::Node, &["NODE_OPTIONS=--max-http-header-size=1"], &["node", "x.js"]);
    assert_eq!(found.exports.last().unwrap().change, Change::Appended);
    assert_eq!(found.value(NODE), Some("--max-old-space-size=768"));
}

#[test]
fn a_heap_that_node_could_not_start_with_is_not_exported() {
    for (mib, expected) in [(1, None), (42, None), (43, Some(32)), (64, Some(48)), (101, Some(75))]
    {
        let limits = Limits { memory_bytes: limit(mib << 20), ..Limits::default() };
        let found = plain(&limits, &sizing(&[Profile::Node]));
        let option = expected.map(|mib| format!("--max-old-space-size={mib}"));
        assert_eq!(found.value(NODE), option.as_deref(), "{mib}");
        assert_eq!(found.why_not(NODE).is_some(), expected.is_none(), "{mib}");
    }
}
