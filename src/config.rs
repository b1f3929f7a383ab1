//! The configuration: from arguments and variables to one typed value.
//!
//! So far the table of settings and the kinds of their values.

mod options;
mod value;
