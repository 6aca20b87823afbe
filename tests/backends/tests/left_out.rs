//! A test that cannot run prints a line that a plain `cargo test` shows, and fails where it must run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

use tandem_backends::require;

const CHILD: &str = "TANDEM_BACKENDS_TEST_CHILD";

/// Proves nothing by itself. The tests below run it in a separate process, where no server is installed.
#[test]
fn needs_a_server() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    require!(mongod);
    panic!("went on without a server");
}

fn run_without_servers(required: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["needs_a_server", "--exact"])
        .env(CHILD, "1")
        .env("TANDEM_TEST_MONGOD", "/nowhere/mongod")
        .env("TANDEM_REQUIRE_BACKENDS", required)
        .output()
        .unwrap()
}

#[test]
fn a_test_left_out_passes_and_says_so_past_the_harness() {
    let output = run_without_servers("");
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(
            "LEFT OUT: needs_a_server needs a real mongod; run tests/backends/install.sh"
        ),
        "{said}"
    );
}

#[test]
fn a_test_that_must_not_be_left_out_fails() {
    assert!(!run_without_servers("1").status.success());
}
