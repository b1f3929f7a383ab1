//! What the repository promises about itself, read from its own text: who may
//! import whom, where `unsafe` may stand, that nothing is left without a reason,
//! and that the documents speak of flags and variables that exist.
//!
//! Comments and what is compiled for tests only are not held to the layering.
#![expect(clippy::expect_used, clippy::panic, reason = "the whole binary is tests")]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use source::{Source, sources};

fn text_of(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Libraries, and the only places that may import them.
const PLACES: [(&str, &[&str]); 13] = [
    ("nix", &["src/system"]),
    ("libc", &["src/system"]),
    ("cgroups_rs", &["src/system"]),
    ("signal_hook", &["src/system"]),
    ("signal_hook_tokio", &["src/system"]),
    ("futures_core", &["src/system"]),
    ("socket2", &["src/http/listen.rs"]),
    ("hyper", &["src/http", "src/checks", "src/wire.rs"]),
    ("hyper_util", &["src/http", "src/checks"]),
    ("http_body_util", &["src/http", "src/checks"]),
    ("domain", &["src/checks/names"]),
    ("resolv_conf", &["src/checks/names"]),
    ("lexopt", &["src/config/args.rs", "src/config/probe.rs"]),
];

#[test]
fn the_rules_see_the_sources() {
    let sources = sources();
    let find = |path: &str| sources.iter().find(|source| source.path == path).expect(path);
    assert!(sources.len() > 30, "{}", sources.len());
    // Each way in which a path may be written is found somewhere.
    assert!(find("src/run.rs").uses("crate::system::terminal::Terminal"));
    assert!(find("src/run/parts.rs").uses("crate::policy::hooks::HookRules"));
    assert!(find("src/run.rs").uses("std::process::id"));
    assert!(find("src/system/outlet.rs").uses("libc::pwritev2"));
    assert!(find("src/policy/status.rs").uses("crate::policy::limits::Limits"));
}

#[test]
fn libraries_are_imported_where_they_belong() {
    for source in sources() {
        for (library, places) in PLACES {
            let is_here = places.iter().any(|place| source.path.starts_with(place));
            let uses: Vec<_> = source.paths_below(library);
            assert!(is_here || uses.is_empty(), "{} imports {uses:?}", source.path);
        }
    }
}

#[test]
fn policy_reads_no_clock_and_asks_nobody() {
    for source in sources().iter().filter(|source| source.is_below("policy")) {
        for module in ["fs", "env", "net", "process", "thread", "os::fd"] {
            let uses = source.paths_below(&format!("std::{module}"));
            assert!(uses.is_empty(), "{} imports {uses:?}", source.path);
        }
        for word in ["Instant::now", "SystemTime", ".elapsed()", "println!", "eprintln!", "async "]
        {
            assert!(!source.code.contains(word), "{} has {word}", source.path);
        }
        let roots: BTreeSet<_> = source.paths.iter().filter_map(|p| p.split("::").next()).collect();
        for library in ["tokio", "tracing", "tracing_subscriber", "serde", "serde_json", "toml"] {
            assert!(!roots.contains(library), "{} imports {library}", source.path);
        }
    }
}

/// The arrows of the picture in `src/lib.rs`: from a module to those that it
/// names. What policy may not use of std is a rule of its own.
fn picture() -> BTreeMap<String, BTreeSet<String>> {
    let text = text_of("src/lib.rs");
    let picture = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let names = |list: &str| -> Vec<String> {
        let list = list.split('(').next().unwrap_or_default();
        list.split(',').map(|name| name.trim().to_owned()).collect()
    };
    for line in picture.expect("a picture").lines() {
        for part in line.trim_start_matches("//!").split("   ") {
            let stations: Vec<_> = part.split(" -> ").map(names).collect();
            for (from, to) in stations.iter().zip(stations.iter().skip(1)) {
                for from in from.iter().filter(|from| *from != "policy") {
                    arrows.entry(from.clone()).or_default().extend(to.iter().cloned());
                }
            }
        }
    }
    arrows
}

/// Whether the picture allows it, by one arrow or a chain of them.
fn is_allowed(arrows: &BTreeMap<String, BTreeSet<String>>, from: &str, path: &str) -> bool {
    arrows.get(from).into_iter().flatten().any(|to| {
        let whole = format!("crate::{to}");
        path == whole || path.starts_with(&format!("{whole}::")) || is_allowed(arrows, to, path)
    })
}

#[test]
fn imports_follow_the_picture() {
    let arrows = picture();
    assert_eq!(arrows.len(), 12, "{arrows:?}");
    for source in sources() {
        let Some(own) = source.module.first() else { continue };
        for path in source.paths_below("crate") {
            let target = path.split("::").nth(1).unwrap_or_default();
            let is_right = target == own || is_allowed(&arrows, own, path);
            assert!(is_right, "{} imports {path}, which src/lib.rs does not show", source.path);
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for directory in ["src", "tests", "examples", "fuzz/fuzz_targets"] {
        for path in source::rust_files(&root.join(directory)) {
            let text = fs::read_to_string(&path).expect("readable");
            assert!(text.starts_with("//! "), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn nothing_is_left_to_be_done() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // In two halves, so that this file may be read as well.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
    for directory in ["src", "tests", "examples", "fuzz/fuzz_targets"] {
        for path in source::rust_files(&root.join(directory)) {
            let text = fs::read_to_string(&path).expect("readable");
            let mut tokens = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let found = tokens.find(|token| words.contains(token));
            assert_eq!(found, None, "{}", path.display());
        }
    }
}

#[test]
fn every_fuzz_target_is_built_has_seeds_and_calls_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root.join(directory)).expect(directory).flatten();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(name).map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let targets = below("fuzz/fuzz_targets");
    assert!(targets.len() >= 10, "{targets:?}");
    assert_eq!(below("fuzz/seeds"), targets);
    let manifest = text_of("fuzz/Cargo.toml");
    let bins = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let bins: BTreeSet<_> = bins.map(|rest| rest.trim_end_matches(".rs\"").to_owned()).collect();
    assert_eq!(bins, targets);
    let source = text_of("src/fuzzing.rs");
    let functions = source.lines().filter_map(|line| line.strip_prefix("pub fn "));
    let functions = functions.filter_map(|rest| rest.split('(').next()).map(str::to_owned);
    assert_eq!(functions.collect::<BTreeSet<_>>(), targets);
    for target in &targets {
        let text = text_of(&format!("fuzz/fuzz_targets/{target}.rs"));
        assert!(text.contains(&format!("castoff::fuzzing::{target}(bytes)")), "{target}");
    }
}

#[test]
fn unsafe_stands_below_system_and_in_the_entry_point_only() {
    let is_free = |source: &&Source| source.path != "src/main.rs" && !source.is_below("system");
    for source in sources().iter().filter(is_free) {
        let mut words = source.code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(!words.any(|word| word == "unsafe"), "{}", source.path);
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = text_of("Cargo.toml");
    let mut is_dependency = false;
    let mut above = "";
    let mut seen = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = line.contains("dependencies");
        } else if is_dependency && line.contains(" = ") && !line.starts_with('#') {
            seen += 1;
            let beside =
                line.split_once(" # ").is_some_and(|(_, reason)| !reason.trim().is_empty());
            // A heading is about several and so is no reason of one.
            let is_reason = above.starts_with("# ") && !above.starts_with("# ---");
            assert!(beside || is_reason, "no reason beside or above: {line}");
        }
        above = line;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn the_example_image_is_two_files_for_nobody() {
    let dockerfile = text_of("Dockerfile.example");
    let (_, last) = dockerfile.rsplit_once("\nFROM ").expect("stages");
    let mut lines = last.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("scratch"));
    let rest: Vec<_> = lines.collect();
    let user = rest.iter().find_map(|line| line.strip_prefix("USER ")).expect("USER");
    let (uid, gid) = user.split_once(':').expect("uid:gid");
    for id in [uid, gid] {
        // A kubelet with runAsNonRoot can check numbers only.
        assert!(id.parse::<u32>().is_ok_and(|id| id > 0), "USER {user}");
    }
    assert!(rest.contains(&r#"ENTRYPOINT ["/castoff", "--"]"#), "{rest:?}");
    assert!(rest.contains(&r#"HEALTHCHECK CMD ["/castoff", "probe"]"#), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("CMD [")), "ENTRYPOINT alone has no command");
    let is_copy = |line: &&&str| line.starts_with("COPY ");
    assert_eq!(rest.iter().filter(is_copy).count(), 2, "castoff and the program");
    assert!(!rest.iter().any(|line| line.starts_with("RUN ")), "there is no shell");
}

/// Flags of other programs that the documents name.
const FOREIGN_FLAGS: [&str; 10] = [
    "--locked",
    "--release",
    "--bench",
    "--example",
    "--from",
    "--rm",
    "--sdnotify",
    "--stops",
    "--lags",
    "--max-old-space-size",
];

/// Variables that are placeholders, or that castoff gives rather than takes.
const NO_SETTINGS: [&str; 5] =
    ["CASTOFF_X", "CASTOFF_X_FILE", "CASTOFF_CPUS", "CASTOFF_MEMORY_BYTES", "CASTOFF_PIDS"];

#[test]
fn the_documents_name_flags_and_variables_that_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_castoff")).arg("--help").output();
    let help = String::from_utf8(help.expect("castoff runs").stdout).expect("text");
    let known: BTreeSet<_> = words_of(&help).collect();
    assert!(known.contains("CASTOFF_DRAIN_DELAY") && known.contains("--drain-delay"), "{help}");
    for document in ["README.md", "CHANGELOG.md", "Dockerfile.example"] {
        let text = text_of(document);
        let is_known = |word: &&str| {
            known.contains(word) || FOREIGN_FLAGS.contains(word) || NO_SETTINGS.contains(word)
        };
        let unknown: Vec<_> = words_of(&text).filter(|word| !is_known(word)).collect();
        assert!(unknown.is_empty(), "{document} names {unknown:?}");
    }
    let readme = text_of("README.md");
    let told: BTreeSet<_> = words_of(&readme).collect();
    let missing: Vec<_> = known.difference(&told).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}

/// Whatever looks like a long flag or a variable of castoff's.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| {
        let is_flag = word
            .strip_prefix("--")
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
        let is_variable = word.strip_prefix("CASTOFF_").is_some_and(|name| !name.is_empty());
        is_flag || is_variable
    })
}
