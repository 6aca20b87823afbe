//! Probes: whether a process is ready, and whether it is alive.
#![expect(clippy::disallowed_methods, reason = "a command runs on real time")]

use std::{io::Error, net::Ipv4Addr, time::Duration};

use anyhow::Context;
use serde_json::Value;
use tandem_front_door::TlsSettings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::tls_client::trusting;

/// Time limit of one probe.
const LIMIT: Duration = Duration::from_millis(1_000);
/// Time limit of one probe where silence has consequences.
const PATIENT_LIMIT: Duration = Duration::from_millis(5_000);

/// An `ApiVersions` request, version 0: length, key 18, version 0, correlation 1, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// How to probe a process.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    /// The first request of every Kafka client, sent to this port.
    Kafka(u16),
    /// A URL that must answer with success.
    Http(String),
}

/// Probes processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Prober {
    http: reqwest::Client,
}

impl Prober {
    /// Makes a prober that trusts the certificates in the settings.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub(super) fn new(tls: &TlsSettings) -> anyhow::Result<Self> {
        let http = trusting(reqwest::Client::builder(), tls)?.build();
        Ok(Self {
            http: http.context("the client that asks whether processes are ready")?,
        })
    }

    /// Whether the process says that it is ready.
    pub(super) async fn is_ready(&self, probe: &Probe) -> bool {
        timeout(LIMIT, self.status(probe)).await == Ok(Some(true))
    }

    /// Whether the process answers at all. A process that refuses because it is overloaded is alive.
    pub(super) async fn is_alive(&self, probe: &Probe) -> bool {
        matches!(
            timeout(PATIENT_LIMIT, self.status(probe)).await,
            Ok(Some(_))
        )
    }

    /// Why a process is not ready, if it gives a reason.
    pub(super) async fn why_not_ready(&self, probe: &Probe) -> Option<String> {
        let Probe::Http(url) = probe else {
            return None;
        };
        let asked = async {
            let answer = self.http.get(url).send().await.ok()?;
            answer.json::<Value>().await.ok()
        };
        let health = timeout(PATIENT_LIMIT, asked).await.ok()??;
        first_reason(&health)
    }

    /// Whether the answer is a success. `None` when there is no answer.
    async fn status(&self, probe: &Probe) -> Option<bool> {
        match probe {
            Probe::Kafka(port) => api_versions(*port).await.ok().map(|()| true),
            Probe::Http(url) => {
                let answer = self.http.get(url).send().await.ok()?;
                Some(answer.status().is_success())
            }
        }
    }
}

/// The first component of a health report that is out of service and gives a reason.
fn first_reason(health: &Value) -> Option<String> {
    let components = health["components"].as_object()?;
    components.iter().find_map(|(name, state)| {
        let status = state["status"].as_str()?;
        let reason = ["error", "reason", "failure"]
            .iter()
            .find_map(|key| state["details"][*key].as_str())?;
        let is_out = status == "DOWN" || status == "OUT_OF_SERVICE";
        is_out.then(|| format!("its {name} is {status}: {reason}"))
    })
}

async fn api_versions(port: u16) -> Result<(), Error> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&API_VERSIONS).await?;
    let mut length_and_correlation = [0; 8];
    stream.read_exact(&mut length_and_correlation).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_out_of_service_is_told_with_its_reason() {
        let health = json!({"status": "DOWN", "components": {
            "filling": {"status": "OUT_OF_SERVICE"},
            "kafka": {"status": "DEGRADED", "details": {"error": "slow"}},
            "store": {"status": "DOWN", "details": {"error": "MongoDB is away"}},
        }});
        assert_eq!(
            first_reason(&health).unwrap(),
            "its store is DOWN: MongoDB is away"
        );
        assert_eq!(first_reason(&json!({"status": "UP"})), None);
        assert_eq!(first_reason(&json!("not health")), None);
    }
}
