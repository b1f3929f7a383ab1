//! How the binary `castoff` is linked; the examples and tests link as usual.

use std::env::var;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    let is = |name, value| var(name).as_deref() == Ok(value);
    if !is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        return;
    }
    // src/system/entry.rs: signals are blocked before the C library starts.
    link("-e,castoff_entry");
    if is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_OS", "linux") {
        // Functions with the same machine code become one: 12 KB. It is an option
        // of lld, which rustc brings along for this target.
        link("--icf=all");
        // One bit for an address that moves with the program, not 24 bytes: 129 KB.
        // The C library moves a static program itself, and older ones cannot.
        if var("HOST") == var("TARGET") && glibc_version() >= Some((2, 36)) {
            link("-z,pack-relative-relocs");
        }
    }
}

fn link(option: &str) {
    println!("cargo::rustc-link-arg-bins=-Wl,{option}");
}

/// Of the machine that builds, and so of what is linked.
fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
