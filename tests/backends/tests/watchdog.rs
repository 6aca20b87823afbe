//! A test process that dies without cleaning up leaves nothing behind.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tandem_backends::{Mongo, require};

const CHILD: &str = "TANDEM_BACKENDS_TEST_CHILD";

#[tokio::test]
async fn a_server_ends_when_its_test_process_is_killed() {
    require!(mongod);
    if std::env::var_os(CHILD).is_some() {
        let mongo = Mongo::start(1).await.unwrap();
        let line = format!("address {}\n", mongo.address(0));
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        std::future::pending::<()>().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "a_server_ends_when_its_test_process_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().split("address ").nth(1).map(str::to_owned))
        .unwrap();
    assert!(TcpStream::connect(&address).is_ok());

    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(&address).is_ok() {
        assert!(
            Instant::now() < deadline,
            "mongod outlived its test process"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
