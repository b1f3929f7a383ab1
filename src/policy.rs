//! What castoff decides, apart from how it is done: time, text and numbers
//! come in, decisions go out.
//!
//! Nothing below this module reads a clock, a file or the environment, makes a
//! system call, awaits or logs; `tests/house_rules` holds it to that.

pub(crate) mod accept;
pub(crate) mod checks;
pub(crate) mod death;
pub(crate) mod dice;
pub(crate) mod drain;
pub(crate) mod env_dir;
pub(crate) mod exit;
pub(crate) mod flush;
pub(crate) mod grpc_health;
pub(crate) mod health;
pub(crate) mod hooks;
pub(crate) mod last_words;
pub(crate) mod late;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod log_style;
pub(crate) mod metrics;
pub(crate) mod notify;
pub(crate) mod oom;
pub(crate) mod oom_score;
pub(crate) mod otel;
pub(crate) mod program;
pub(crate) mod reaction;
pub(crate) mod reload;
pub(crate) mod resize;
pub(crate) mod restart;
pub(crate) mod runtime_env;
pub(crate) mod signal;
pub(crate) mod status;
pub(crate) mod statusz;
pub(crate) mod stop_plan;
pub(crate) mod termination;
pub(crate) mod timeline;
pub(crate) mod traffic;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod watchdog;
