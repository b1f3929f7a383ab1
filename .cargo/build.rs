//! How the binary `castoff` is linked; the examples and tests link as usual.

fn main() {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // src/system/entry.rs: signals are blocked before the C library starts.
        println!("cargo::rustc-link-arg-bins=-Wl,-e,castoff_entry");
    }
}
