//! The `tandem` command: the whole system on one machine, or one of its processes.
// The router's middlewares nest deeper than the default.
#![recursion_limit = "256"]

mod broker;
mod cli;
mod operator;
mod parent;
mod router;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
