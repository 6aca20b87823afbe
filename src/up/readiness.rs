//! Asking a process whether it is ready.

use std::{io::Error, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one question may take.
const LIMIT: Duration = Duration::from_millis(1_000);

/// An ApiVersions request, version 0: length, key 18, version 0, correlation 1, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// How a process is asked.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    /// The first request of every Kafka client, to this port.
    Kafka(u16),
    /// A URL that must answer with success.
    Http(String),
}

/// Asks processes whether they are ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Prober {
    http: reqwest::Client,
}

impl Prober {
    /// Whether the process answers that it is ready.
    pub(super) async fn is_ready(&self, probe: &Probe) -> bool {
        let answer = async {
            match probe {
                Probe::Kafka(port) => api_versions(*port).await.is_ok(),
                Probe::Http(url) => self
                    .http
                    .get(url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success()),
            }
        };
        timeout(LIMIT, answer).await.unwrap_or(false)
    }
}

async fn api_versions(port: u16) -> Result<(), Error> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&API_VERSIONS).await?;
    let mut length_and_correlation = [0; 8];
    stream.read_exact(&mut length_and_correlation).await?;
    Ok(())
}
