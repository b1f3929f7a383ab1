//! How the binary `castoff` is linked; the examples and tests link as usual.

fn main() {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        // src/system/entry.rs: signals are blocked before the C library starts.
        println!("cargo::rustc-link-arg-bins=-Wl,-e,castoff_entry");
    }
    if is("CARGO_CFG_TARGET_ENV", "gnu") {
        // Relative relocations packed (glibc 2.36 unpacks them): 80 KB less.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
