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

use hive_router::{RouterGlobalAllocator, configure_global_allocator};

// The router's choice (mimalloc) suits the services too: a quarter of accounts' time under load went to the system's allocator.
configure_global_allocator!();

fn main() -> ExitCode {
    cli::main()
}
