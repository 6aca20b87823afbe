//! A gateway process of this build, on a free port.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem_backends::free_port;

/// A running `tandem router`, killed when dropped.
pub(crate) struct Gateway {
    pub(crate) url: String,
    process: Child,
    data: tempfile::TempDir,
}

/// A command line of `tandem router`. Its data goes to `data`.
pub(crate) fn command(port: u16, accounts: &str, orders: &str, data: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command
        .stdout(Stdio::null())
        .arg("router")
        .args(["--port", &port.to_string()])
        .args(["--accounts-url", accounts])
        .args(["--orders-url", orders])
        .arg("--data-dir")
        .arg(data);
    command
}

impl Gateway {
    /// Starts a gateway for these services and waits until it is ready.
    pub(crate) async fn start(accounts: &str, orders: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let command = command(port, accounts, orders, data.path());
        Self::start_command(command, port, data).await
    }

    /// Starts a gateway with a changed copy of the built-in router configuration.
    pub(crate) async fn start_with(
        accounts: &str,
        orders: &str,
        change: impl FnOnce(&mut String),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut configuration = include_str!("../../router-config/hive-router.yaml").to_owned();
        change(&mut configuration);
        let file = data.path().join("router.yaml");
        std::fs::write(&file, configuration).unwrap();
        let port = free_port().unwrap();
        let mut command = command(port, accounts, orders, data.path());
        command.arg("--router-config").arg(file);
        Self::start_command(command, port, data).await
    }

    pub(crate) async fn start_command(
        mut command: Command,
        port: u16,
        data: tempfile::TempDir,
    ) -> Self {
        let process = command.stdin(Stdio::piped()).spawn().unwrap();
        let gateway = Self {
            url: format!("http://127.0.0.1:{port}"),
            process,
            data,
        };
        let begin = Instant::now();
        let health = format!("{}/actuator/health/readiness", gateway.url);
        while !reqwest::get(&health)
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "the gateway is not ready after 30 s"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway
    }

    /// Starts a gateway that writes its log as JSON into a file.
    pub(crate) async fn start_logged(accounts: &str, orders: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let mut command = command(port, accounts, orders, data.path());
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        command
            .args(["--log-format", "json"])
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self::start_command(command, port, data).await
    }

    /// The log of a gateway that writes one to a file.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap()
    }

    /// The first line of the log that satisfies the condition. Waits for at most 30 s.
    pub(crate) async fn logged(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let found = self
                .log()
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .find(&is_it);
            if let Some(line) = found {
                return line;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a GraphQL request by POST. Returns the response as JSON.
    pub(crate) async fn query(&self, query: &str) -> Value {
        self.post(json!({ "query": query }))
            .await
            .json()
            .await
            .unwrap()
    }

    /// Sends `body` to the GraphQL endpoint.
    pub(crate) async fn post(&self, body: Value) -> reqwest::Response {
        self.send("application/json", &body.to_string()).await
    }

    /// Sends a body of this media type to the GraphQL endpoint.
    pub(crate) async fn send(&self, kind: &str, body: &str) -> reqwest::Response {
        reqwest::Client::new()
            .post(format!("{}/graphql", self.url))
            .timeout(Duration::from_secs(30))
            .header("content-type", kind)
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }

    /// Sends SIGTERM. Returns the seconds until the process has ended, at most 10.
    pub(crate) async fn terminate(mut self) -> f64 {
        let begin = Instant::now();
        Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        while self.process.try_wait().unwrap().is_none()
            && begin.elapsed() < Duration::from_secs(10)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed().as_secs_f64()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
