//! The `tandem` command.
// The router's middlewares nest deeper than the default.
#![recursion_limit = "256"]

mod router;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Runs the gateway.
    Router(router::RouterSettings),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Router(settings) => router::run(settings),
    }
}
