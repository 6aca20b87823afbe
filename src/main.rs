//! The `tandem` command: the whole system on one machine (`up`), one of its processes, or an operator's command.
//!
//! * `cli`: the command line.
//! * `up`: starts broker, accounts, orders and gateway as child processes and supervises them. `parent` ends a child
//!   when `up` dies; `running` is the file by which commands find a running `up`.
//! * `router`, `broker`: the gateway, and the command of the embedded broker. The services are crates of their own.
//! * `operator`, `doctor`: commands on a running system.
// The router's middleware types nest deeper than the default limit.
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

// jemalloc, because the system's allocator took a quarter of the processor time of accounts under load. mimalloc, which
// the router chose, takes a tenth more processor time than jemalloc and a quarter more memory (docs/performance.md).
// C's malloc stays the system's. libfaketime asks for memory before its clocks work, and jemalloc asks for the time
// before it has memory, so the two would wait for each other for ever.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
