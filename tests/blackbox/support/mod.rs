//! What the black-box tests share: starting castoff, its children, its log, its
//! endpoints, and waiting for a condition.

pub(crate) mod castoff;
pub(crate) mod child;
pub(crate) mod group;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod lines;
pub(crate) mod network;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod scratch;
pub(crate) mod story;
pub(crate) mod terminal;
pub(crate) mod wait_until;

pub(crate) use castoff::{Castoff, Ended, Place, Running};
pub(crate) use child::example;
pub(crate) use group::Group;
pub(crate) use scratch::Scratch;
pub(crate) use story::{story, whole_story};
pub(crate) use terminal::Terminal;
pub(crate) use wait_until::wait_until;

/// Makes each test twice: `as_pid_1::name` and `as_subreaper::name`.
macro_rules! in_both_places {
    ($(fn $name:ident($place:ident) $body:block)+) => {
        $(fn $name($place: $crate::support::Place) $body)+
        mod as_pid_1 {
            $(#[test] fn $name() { super::$name($crate::support::Place::Pid1); })+
        }
        mod as_subreaper {
            $(#[test] fn $name() { super::$name($crate::support::Place::Subreaper); })+
        }
    };
}
pub(crate) use in_both_places;
