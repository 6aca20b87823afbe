//! Selects the OpenSSL that librdkafka links: the system's if it is installed, otherwise one that is compiled from
//! source.
//!
//! `openssl-sys` compiles one unless a variable makes it use the system's, and then it fails if there is none.
//! Compiling takes four minutes of processor time and is the longest part of a first build. This script looks for the
//! system's first, so a build is short on a machine with `libssl-dev` and also works on a bare one.
//!
//! `TANDEM_OPENSSL=source` always compiles it, for a binary that must run where no OpenSSL is installed.

// A build script communicates with cargo on standard output and stops a build with a panic.
#![allow(clippy::print_stdout)]

use std::env;

/// The oldest version of the system's OpenSSL that is used. Older ones get no more fixes.
const OLDEST: &str = "3.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TANDEM_OPENSSL");
    let from_source = env::var_os("TANDEM_OPENSSL").is_some_and(|wanted| wanted == "source");
    // The system's libraries cannot be used on another machine.
    let for_this_machine = env::var_os("TARGET") == env::var_os("HOST");
    if !from_source && for_this_machine && links_installed() {
        return;
    }
    let compiled = openssl_src::Build::new().build();
    compiled.print_cargo_metadata();
    if let Some(root) = compiled.lib_dir().parent() {
        // `rdkafka-sys` looks for headers and libraries below this directory.
        println!("cargo:root={}", root.display());
    }
}

/// Links the system's OpenSSL if pkg-config finds one that is new enough.
fn links_installed() -> bool {
    pkg_config::Config::new()
        .atleast_version(OLDEST)
        .probe("openssl")
        .is_ok()
}
