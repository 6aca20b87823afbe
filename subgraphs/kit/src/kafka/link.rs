//! What the Kafka client says of its link, told once as one sentence instead of once a client and attempt.
//!
//! librdkafka reports a refused login to a callback, while the request that needed the login only times out. One client of a
//! process listens here; the lines of all others are kept out of the log (see [`crate::telemetry`]).

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Listens to a client, and remembers that Kafka refuses its login. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Mutex<Option<String>>>);

impl Link {
    /// Why Kafka does not let this service in, as a sentence; `None` when it does, or has not been asked.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Forgets a refusal: Kafka has answered.
    pub(super) fn let_in(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Link {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, line, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::Authentication) {
            tracing::debug!(%error, reason, "librdkafka");
            return;
        }
        let sentence = sentence(reason);
        let mut refusal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refusal.is_none() {
            tracing::error!("{sentence}");
            *refusal = Some(sentence);
        }
    }
}

/// What librdkafka says begins with the broker's address and ends with how long it took.
fn sentence(reason: &str) -> String {
    let said = reason
        .rsplit_once(" (after ")
        .map_or(reason, |(said, _)| said);
    let (broker, said) = said.split_once(": ").unwrap_or(("Kafka", said));
    let broker = broker.trim_end_matches("/bootstrap");
    format!(
        "Kafka authentication failed: {broker} refuses the login ({said}); correct sasl.username and sasl.password"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "sasl_ssl://localhost:9093/bootstrap: SASL authentication error: \
        Authentication failed: Invalid username or password (after 312ms in state AUTH_REQ)";

    #[test]
    fn a_refused_login_is_one_sentence() {
        assert_eq!(
            sentence(SAID),
            "Kafka authentication failed: sasl_ssl://localhost:9093 refuses the login (SASL authentication error: \
             Authentication failed: Invalid username or password); correct sasl.username and sasl.password"
        );
    }

    #[test]
    fn a_refusal_is_remembered_until_kafka_answers_and_other_trouble_is_none() {
        let link = Link::default();
        link.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "down",
        );
        assert_eq!(link.refusal(), None);
        link.error(KafkaError::Global(RDKafkaErrorCode::Authentication), SAID);
        assert!(link.refusal().is_some_and(|told| told.contains("password")));
        link.let_in();
        assert_eq!(link.refusal(), None);
    }
}
