//! `castoff explain`: finds out what a start would, and has it told.
//!
//! Of the system it reads files only. What a start would fail with is a warning
//! here.

use std::time::Instant;

use super::parts::{about, c_strings, export_rule, otel_warning, roots};
use super::{identity, print};
use crate::config::Explanation;
use crate::explain::{self, Facts};
use crate::supervisor::Environment;
use crate::system::{cgroup, program};

/// Tells what `launch` would do, and returns 0.
pub(super) fn explain(explanation: &Explanation) -> u8 {
    let config = &explanation.config;
    let roots = roots(config);
    let mut found = cgroup::find(&roots);
    let mut environment =
        Environment::new(identity::directories(config), None, export_rule(config));
    let failures = [
        identity::switch(config).err(),
        identity::directory(config).err(),
        identity::read_directories(config, &mut environment).err(),
    ];
    found.warnings.extend(failures.into_iter().flatten().map(|failure| failure.to_string()));
    let otel = otel_warning(config);
    found.warnings.extend(otel.map(|cause| format!("cannot complete OTEL_* variables: {cause}")));
    environment.export(&found.limits);
    let workdir = config.workdir.as_ref().map(|workdir| workdir.value.as_path());
    let program = program::recognise(&c_strings(&config.command), &environment.base(), workdir);
    let facts = Facts {
        memory_high: cgroup::memory_high(&roots, &found),
        program: program.kind.text(),
        found: &found,
        exports: environment.exports(),
        is_sizing_off: config.sizing.profiles.is_empty(),
        checks: &config.checks,
        timeline: &about(config, Instant::now()).timeline,
        settings: &explanation.settings,
    };
    print(&if explanation.is_json { explain::json(&facts) } else { explain::text(&facts) })
}
