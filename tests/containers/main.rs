//! castoff in containers: podman and runc, images FROM scratch, real limits of
//! the machine's own cgroups, a real terminal.
//!
//! Not a part of plain `cargo test`: it needs root and podman, and says so
//! instead of passing without them. `cargo test --features container-tests
//! --test containers`, after `cargo build --examples`; CASTOFF_BIN names another
//! castoff than the one that cargo has just built.
#![expect(clippy::expect_used, clippy::panic, reason = "the whole binary is tests")]

#[path = "../blackbox/support/child.rs"]
mod child;
#[path = "../blackbox/support/lines.rs"]
mod lines;
#[expect(dead_code, reason = "what only the other suite asks")]
#[path = "../blackbox/support/probe.rs"]
mod probe;
#[path = "../blackbox/support/wait_until.rs"]
mod wait_until;

mod podman;

mod death; // the OOM killer, and the file of the termination message
mod hardened; // read-only, no user, no capability; the endpoints from outside
mod identity; // the users of an image, and runtimes that allow less than all
mod image; // FROM scratch and Dockerfile.example: starts, codes, the log
mod limits; // what --memory, --cpus and the like become in the child
mod logs; // conmon's file of wrapped lines
mod shared_pids; // somebody else is PID 1
mod stop; // podman stop
mod terminal; // podman run -it
