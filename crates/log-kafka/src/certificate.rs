//! Finds out why a broker's certificate is refused. librdkafka gives the same error for an untrusted certificate and
//! for one of another host name.
//!
//! It connects once more, without checking the host name and **without the login**: a host with the wrong identity must
//! not get the password.
#![expect(clippy::disallowed_methods, reason = "it waits for a real server")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use tokio_util::sync::CancellationToken;

use super::{
    reason::{Cause, Reason},
    settings::KafkaSettings,
};

/// The time limit of the whole check.
const LIMIT: Duration = Duration::from_secs(5);
/// The time between two reads of the client's errors.
const LOOK: Duration = Duration::from_millis(200);

/// Which of the two causes it is; `None` if that cannot be found out now, or `stop` is cancelled. Blocks the thread for
/// at most 5 s.
pub(super) fn cause(settings: &KafkaSettings, stop: &CancellationToken) -> Option<Cause> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings.bootstrap_servers());
    KafkaSettings::find_authorities(&mut config);
    for (key, value) in settings.effective_properties() {
        if key.starts_with("ssl.") {
            config.set(key, value);
        }
    }
    config
        .set("security.protocol", "SSL")
        .set("ssl.endpoint.identification.algorithm", "none")
        .set("group.id", "tandem-tail");
    let heard = Heard::default();
    let client: BaseConsumer<Heard> = config.create_with_context(heard.clone()).ok()?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && !stop.is_cancelled() {
        if client.fetch_metadata(None, LOOK).is_ok() {
            return Some(Cause::HostName);
        }
        // The client reports its errors only when it is polled.
        while client.poll(Duration::ZERO).is_some() {}
        if let Some(cause) = heard.cause() {
            return Some(cause);
        }
    }
    None
}

/// The errors that the client reported about its connection.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Said>>);

#[derive(Clone, Copy, Default)]
struct Said {
    cause: Option<Cause>,
    /// Whether the connection failed before the server could send a certificate.
    is_elsewhere: bool,
}

impl Heard {
    fn cause(&self) -> Option<Cause> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cause
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, told: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let code = error.rdkafka_error_code();
        match Reason::read(code, told) {
            Some(reason) if reason.cause == Cause::Certificate => {
                said.cause = Some(Cause::UntrustedCertificate);
            }
            Some(_) => said.is_elsewhere = true,
            // The connection ended without a reason, as it does after the handshake because there is no login. So the
            // certificate is trusted.
            None if code == Some(RDKafkaErrorCode::AllBrokersDown)
                && said.cause.is_none()
                && !said.is_elsewhere =>
            {
                said.cause = Some(Cause::HostName);
            }
            None => {}
        }
    }
}

impl ConsumerContext for Heard {}
