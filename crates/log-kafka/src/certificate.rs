//! Finds out why a broker's certificate is not accepted. librdkafka says the same for one that is not trusted and for one of
//! another host name.
//!
//! It is asked once more, without looking at the host name and **without the login**: a host that is not who it says it is must not be
//! told the password.
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

/// How long the question may take in all.
const LIMIT: Duration = Duration::from_secs(5);
/// How long it waits between two looks at what the client says.
const LOOK: Duration = Duration::from_millis(200);

/// Which of the two it is; `None` when that cannot be found out now, or nobody wants to know any more. Blocks its thread, for 5 s at most.
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
        // What the client has to say comes out only where it is polled.
        while client.poll(Duration::ZERO).is_some() {}
        if let Some(cause) = heard.cause() {
            return Some(cause);
        }
    }
    None
}

/// What the client said of its connection.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Said>>);

#[derive(Clone, Copy, Default)]
struct Said {
    cause: Option<Cause>,
    /// Whether connecting failed before there could be a certificate.
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
            // The connection ended without a word of why, as it does after the handshake, for want of a login: the certificate is
            // trusted.
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
