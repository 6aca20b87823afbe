//! Collects what the Kafka clients of a process report about their connections, as one reason instead of one line for
//! each client and attempt.
//!
//! librdkafka reports to a callback why a connection fails, while the request that needs it only times out. The clients
//! of a process share one [`Link`]. Their own lines are kept out of the log (see `tandem_service::telemetry`).

use std::{collections::BTreeMap, sync::Arc};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::watch;

use super::reason::{Cause, Reason};

/// How many brokers' errors are kept. A cluster may have more, but they fail for the same few reasons.
const BROKERS: usize = 64;

/// What is known about the connections.
#[derive(Clone, Debug, Default)]
struct State {
    /// The newest error of each broker.
    reasons: BTreeMap<String, Reason>,
    /// Whether a client has reported that it has no broker left, or may not log in.
    is_down: bool,
    /// Whether a check has confirmed that.
    is_confirmed: bool,
}

/// Listens to clients, and remembers why Kafka cannot be used. Clones share the state.
#[derive(Clone, Debug)]
pub struct Link(Arc<watch::Sender<State>>);

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

impl Link {
    /// Why Kafka cannot be used, if a client has reported it. Of several reasons it is the one that most likely applies
    /// to all brokers.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let state = self.0.borrow();
        let worst = state.reasons.values().max_by_key(|reason| reason.cause);
        worst.cloned()
    }

    /// Whether a client has no broker left. This may be wrong, because a broker also closes idle connections.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.0.borrow().is_down
    }

    /// Whether Kafka did not answer a check after a client had lost its last broker.
    #[must_use]
    pub fn is_confirmed_down(&self) -> bool {
        let state = self.0.borrow();
        state.is_down && state.is_confirmed
    }

    /// Waits until a client has no broker left.
    pub(super) async fn down(&self) {
        let mut told = self.0.subscribe();
        // `self` holds the sender, so it cannot be gone.
        let _ = told.wait_for(|state| state.is_down).await;
    }

    /// Waits until there is no error any more.
    pub(super) async fn up(&self) {
        let mut told = self.0.subscribe();
        let _ = told.wait_for(|state| !state.is_down).await;
    }

    /// Records that Kafka did not answer a check.
    pub(super) fn confirm(&self) {
        self.0.send_modify(|state| {
            state.is_down = true;
            state.is_confirmed = true;
        });
    }

    /// Replaces an ambiguous cause by a more precise one.
    pub(super) fn refine(&self, cause: Cause) {
        self.0.send_modify(|state| {
            for reason in state.reasons.values_mut() {
                if reason.cause == Cause::Certificate {
                    reason.cause = cause;
                }
            }
        });
    }

    /// Forgets all errors, because Kafka has answered.
    pub(super) fn let_in(&self) {
        self.0
            .send_if_modified(|state| !std::mem::take(state).is_well());
    }

    fn heard(&self, code: Option<RDKafkaErrorCode>, told: &str) {
        let down = matches!(
            code,
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication)
        );
        let reason = Reason::read(code, told);
        if !down && reason.is_none() {
            return;
        }
        self.0.send_modify(|state| {
            state.is_down |= down;
            let Some(mut reason) = reason else { return };
            if let Some(known) = state.reasons.get(&reason.broker)
                && reason.cause == Cause::Certificate
                && matches!(known.cause, Cause::UntrustedCertificate | Cause::HostName)
            {
                reason.cause = known.cause;
            }
            if state.reasons.len() < BROKERS || state.reasons.contains_key(&reason.broker) {
                state.reasons.insert(reason.broker.clone(), reason);
            }
        });
    }
}

impl State {
    fn is_well(&self) -> bool {
        self.reasons.is_empty() && !self.is_down
    }
}

impl ClientContext for Link {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, line, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.heard(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for Link {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REFUSED: &str = "sasl_ssl://a:9093/bootstrap: SASL authentication error: \
        Authentication failed: Invalid username or password (after 312ms in state AUTH_REQ)";
    const CLOSED: &str = "b:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
    const UNTRUSTED: &str = "ssl://c:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed (after 6ms in state SSL_HANDSHAKE)";

    fn tell(link: &Link, code: RDKafkaErrorCode, told: &str) {
        link.error(KafkaError::Global(code), told);
    }

    #[test]
    fn a_reason_is_remembered_until_kafka_answers() {
        let link = Link::default();
        assert_eq!(link.reason(), None);
        tell(&link, RDKafkaErrorCode::BrokerTransportFailure, CLOSED);
        // One of several brokers may be unavailable.
        assert!(!link.is_down());
        tell(
            &link,
            RDKafkaErrorCode::AllBrokersDown,
            "1/1 brokers are down",
        );
        assert!(link.is_down() && !link.is_confirmed_down());
        link.confirm();
        assert!(link.is_confirmed_down());
        assert_eq!(link.reason().unwrap().cause, Cause::ClosedPort);
        link.let_in();
        assert!(link.reason().is_none() && !link.is_down());
    }

    #[test]
    fn a_refused_login_weighs_more_than_a_closed_port() {
        let link = Link::default();
        tell(&link, RDKafkaErrorCode::Authentication, REFUSED);
        tell(&link, RDKafkaErrorCode::BrokerTransportFailure, CLOSED);
        assert!(link.is_down());
        assert_eq!(link.reason().unwrap().cause, Cause::Login);
    }

    #[test]
    fn what_was_found_out_of_a_certificate_outlives_the_next_attempt() {
        let link = Link::default();
        tell(&link, RDKafkaErrorCode::SSL, UNTRUSTED);
        assert_eq!(link.reason().unwrap().cause, Cause::Certificate);
        link.refine(Cause::HostName);
        tell(&link, RDKafkaErrorCode::SSL, UNTRUSTED);
        assert_eq!(link.reason().unwrap().cause, Cause::HostName);
    }

    #[test]
    fn a_cluster_of_any_size_is_remembered_within_bounds() {
        let link = Link::default();
        for number in 0..10 * BROKERS {
            let told = format!("h{number}:1/bootstrap: Connect failed: Connection refused");
            tell(&link, RDKafkaErrorCode::BrokerTransportFailure, &told);
        }
        assert_eq!(link.0.borrow().reasons.len(), BROKERS);
    }
}
