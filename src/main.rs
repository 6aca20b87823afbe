//! The `tandem` command: the whole system on one machine (`up`), one of its processes, or an operator's command.
//!
//! * `cli`: the command line.
//! * `up`: starts broker, accounts, orders and gateway as child processes and watches them; `parent` and `running`
//!   connect them.
//! * `router`, `broker`: the gateway, and the command of the embedded broker. The services are crates of their own.
//! * `operator`, `doctor`: commands on a running system.
// The router's middlewares nest deeper than the default.
#![recursion_limit = "256"]

mod broker;
mod cli;
mod disk;
mod doctor;
mod operator;
mod parent;
mod router;
mod running;
mod terminal;
mod tls_client;
mod up;

use std::process::ExitCode;

// Under load a quarter of accounts' processor time went to the system's allocator. The router's choice, mimalloc, takes a tenth more of it
// than this one, and a quarter more memory (docs/performance.md). C's malloc stays the system's: libfaketime, which asks for memory before
// its clocks work, and this allocator, which asks for the time before it has memory, wait for each other for ever.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
