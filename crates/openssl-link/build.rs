//! Which OpenSSL librdkafka is linked with: the system's where it is installed, else one compiled from source.
//!
//! `openssl-sys` compiles one (four minutes of processor time, the longest part of a first build) unless a variable tells it to
//! look at the system, and then fails where there is none. This script looks first, so that a build on a machine with
//! `libssl-dev` is short by itself, and one on a bare machine works all the same.
//!
//! `TANDEM_OPENSSL=source` compiles it in any case, for a binary that must run where no OpenSSL is installed.

// A build script speaks to cargo on standard output, and stops a build by a panic.
#![allow(clippy::print_stdout)]

use std::env;

/// The first version that is taken from the system: older ones get no more repairs.
const OLDEST: &str = "3.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TANDEM_OPENSSL");
    let from_source = env::var_os("TANDEM_OPENSSL").is_some_and(|wanted| wanted == "source");
    // The system's libraries are of no use to another machine.
    let for_this_machine = env::var_os("TARGET") == env::var_os("HOST");
    if !from_source && for_this_machine && links_installed() {
        return;
    }
    let compiled = openssl_src::Build::new().build();
    compiled.print_cargo_metadata();
    if let Some(root) = compiled.lib_dir().parent() {
        // rdkafka-sys looks for headers and libraries below it.
        println!("cargo:root={}", root.display());
    }
}

/// Links the system's OpenSSL where pkg-config knows one that is new enough.
fn links_installed() -> bool {
    pkg_config::Config::new()
        .atleast_version(OLDEST)
        .probe("openssl")
        .is_ok()
}
