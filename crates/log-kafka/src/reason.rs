//! Why Kafka is unreachable: turns a client's connection error into one sentence that says what to fix.
//!
//! The texts are those of librdkafka 2.12 (`rdkafka_broker.c`, `rdkafka_transport.c`, `rdkafka_ssl.c`). Unknown texts
//! are quoted, shortened.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

/// What is wrong with a connection. The order is from causes that affect one broker to causes that affect all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An unknown cause.
    Other,
    /// Packets get lost, and nothing answers.
    Silent,
    /// There is no route to the address.
    NoRoute,
    /// Nothing listens on the port.
    ClosedPort,
    /// The host's name cannot be resolved.
    UnknownName,
    /// The listener does not speak TLS.
    PlainListener,
    /// The listener expects another protocol than the client uses: TLS or a login is missing.
    ProtectedListener,
    /// The listener requires a client certificate.
    ClientCertificate,
    /// The certificate is not trusted, or is for another host. librdkafka does not say which.
    Certificate,
    /// The certificate is not signed by an authority that the client trusts.
    UntrustedCertificate,
    /// The certificate is for another host name.
    HostName,
    /// The listener does not accept this login mechanism.
    Mechanism,
    /// The user or the password is wrong.
    Login,
}

/// Why a broker cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The cause.
    pub cause: Cause,
    /// `host:port` of the broker.
    pub broker: String,
    /// Whether the settings name this broker. Otherwise the cluster advertised it.
    pub is_configured: bool,
    /// The client's error text.
    pub said: String,
}

/// The longest quotation of a foreign text.
const LONGEST_QUOTE: usize = 200;

impl Reason {
    /// Parses what librdkafka reports to an error callback; `None` if the text names no broker.
    #[must_use]
    pub fn read(code: Option<RDKafkaErrorCode>, told: &str) -> Option<Self> {
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            return None;
        }
        // "sasl_ssl://host:9093/bootstrap: what happened (after 312ms in state AUTH_REQ)"
        let told = told
            .rsplit_once(" (after ")
            .map_or(told, |(said, _)| said)
            .trim_start_matches("GroupCoordinator: ");
        let (name, said) = told.split_once(": ")?;
        let name = name.split_once("://").map_or(name, |(_, name)| name);
        let (broker, id) = name.rsplit_once('/').unwrap_or((name, ""));
        if !broker.contains(':') {
            return None;
        }
        Some(Self {
            cause: cause(code, said),
            broker: broker.to_owned(),
            is_configured: id == "bootstrap",
            said: said.chars().take(LONGEST_QUOTE).collect(),
        })
    }
}

fn cause(code: Option<RDKafkaErrorCode>, said: &str) -> Cause {
    let has = |text: &str| said.contains(text);
    match code {
        Some(RDKafkaErrorCode::Authentication) if has("echanism") => return Cause::Mechanism,
        Some(RDKafkaErrorCode::Authentication) => return Cause::Login,
        Some(RDKafkaErrorCode::Resolve) => return Cause::UnknownName,
        _ => {}
    }
    if has("Failed to resolve") {
        Cause::UnknownName
    } else if has("certificate verify failed") || has("could not be verified") {
        Cause::Certificate
    } else if has("client SSL authentication might be") || has("certificate required") {
        Cause::ClientCertificate
    } else if has("PLAINTEXT broker listener") || has("wrong version number") {
        Cause::PlainListener
    } else if has("security.protocol configuration") {
        Cause::ProtectedListener
    } else if has("Connection refused") {
        Cause::ClosedPort
    } else if has("No route to host") || has("Network is unreachable") {
        Cause::NoRoute
    } else if has("timed out") || has("Operation timed out") {
        Cause::Silent
    } else {
        Cause::Other
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broker, said, .. } = self;
        // The error must be fixed where the address comes from.
        let source = if self.is_configured {
            "--kafka-brokers (TANDEM_KAFKA_BROKERS)"
        } else {
            "the broker's advertised.listeners"
        };
        match self.cause {
            Cause::Login => write!(
                formatter,
                "Kafka authentication failed: {broker} refuses the login ({said}); correct sasl.username and sasl.password"
            ),
            Cause::Mechanism => write!(
                formatter,
                "Kafka at {broker} does not take this way of logging in ({said}); set the property sasl.mechanism to one that it has"
            ),
            Cause::UntrustedCertificate => write!(
                formatter,
                "the certificate of Kafka at {broker} is not trusted: set the property ssl.ca.location to a file with the certificate of its authority (PEM)"
            ),
            Cause::HostName => write!(
                formatter,
                "the certificate of Kafka at {broker} is for another host name: use a name that stands in the certificate, in {source}"
            ),
            Cause::Certificate => write!(
                formatter,
                "the certificate of Kafka at {broker} is not accepted: it is not trusted (property ssl.ca.location), or is for another host name"
            ),
            Cause::ClientCertificate => write!(
                formatter,
                "Kafka at {broker} wants a certificate of the client: set the properties ssl.certificate.location and ssl.key.location"
            ),
            Cause::PlainListener => write!(
                formatter,
                "Kafka at {broker} does not speak TLS: set the property security.protocol to PLAINTEXT or SASL_PLAINTEXT, or take its port for TLS"
            ),
            Cause::ProtectedListener => write!(
                formatter,
                "Kafka at {broker} ends the connection at the first request: it wants TLS or a login; set the property security.protocol to SSL, SASL_SSL or SASL_PLAINTEXT"
            ),
            Cause::UnknownName => write!(
                formatter,
                "the host name of Kafka at {broker} cannot be resolved: correct it in {source}, or mend the DNS"
            ),
            Cause::ClosedPort => write!(
                formatter,
                "Kafka at {broker} refuses the connection: nothing listens on that port; start Kafka, or correct the address in {source}"
            ),
            Cause::NoRoute => write!(
                formatter,
                "there is no way to Kafka at {broker} ({said}); correct the address in {source}, or mend the network"
            ),
            Cause::Silent => write!(
                formatter,
                "Kafka at {broker} does not answer ({said}); correct the address in {source}, or let the packets through firewall and network policy"
            ),
            Cause::Other => write!(formatter, "Kafka at {broker} cannot be used: {said}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(code: RDKafkaErrorCode, told: &str) -> Reason {
        Reason::read(Some(code), told).unwrap()
    }

    #[test]
    fn a_refused_login_is_one_sentence() {
        let told = "sasl_ssl://localhost:9093/bootstrap: SASL authentication error: \
            Authentication failed: Invalid username or password (after 312ms in state AUTH_REQ)";
        assert_eq!(
            read(RDKafkaErrorCode::Authentication, told).to_string(),
            "Kafka authentication failed: localhost:9093 refuses the login (SASL authentication error: \
             Authentication failed: Invalid username or password); correct sasl.username and sasl.password"
        );
    }

    #[test]
    fn every_reason_that_the_client_gives_is_known() {
        use RDKafkaErrorCode::{
            Authentication, BrokerTransportFailure as Transport, Resolve, SSL as Ssl,
        };
        for (code, told, cause) in [
            (
                Transport,
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                Cause::ClosedPort,
            ),
            (
                Resolve,
                "kafka.invalid:9092/bootstrap: Failed to resolve 'kafka.invalid:9092': Name or service not known (after 3ms in state CONNECT)",
                Cause::UnknownName,
            ),
            (
                Ssl,
                "ssl://127.0.0.1:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured (after 6ms in state SSL_HANDSHAKE)",
                Cause::Certificate,
            ),
            (
                Ssl,
                "ssl://127.0.0.1:9092/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number (after 1ms in state SSL_HANDSHAKE)",
                Cause::PlainListener,
            ),
            (
                Transport,
                "127.0.0.1:9093/bootstrap: Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) (after 2ms in state APIVERSION_QUERY)",
                Cause::ProtectedListener,
            ),
            (
                Transport,
                "10.0.0.1:9092/1: Connection setup timed out in state CONNECT (after 10003ms in state CONNECT)",
                Cause::Silent,
            ),
            (
                Transport,
                "10.0.0.1:9092/1: Connect to ipv4#10.0.0.1:9092 failed: No route to host (after 3ms in state CONNECT)",
                Cause::NoRoute,
            ),
            (
                Authentication,
                "sasl_plaintext://a:9092/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512 (after 2ms in state AUTH_HANDSHAKE)",
                Cause::Mechanism,
            ),
        ] {
            let reason = read(code, told);
            assert_eq!(reason.cause, cause, "{told}");
            let sentence = reason.to_string();
            assert!(sentence.contains(&reason.broker), "{sentence}");
            assert!(!sentence.contains("(after"), "{sentence}");
        }
    }

    #[test]
    fn an_address_is_mended_where_it_comes_from() {
        let refused = "Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        let code = RDKafkaErrorCode::BrokerTransportFailure;
        let configured = read(code, &format!("127.0.0.1:1/bootstrap: {refused}")).to_string();
        assert!(configured.contains("TANDEM_KAFKA_BROKERS"), "{configured}");
        let advertised = read(code, &format!("127.0.0.1:1/3: {refused}")).to_string();
        assert!(advertised.contains("advertised.listeners"), "{advertised}");
        let coordinator = format!("GroupCoordinator: 127.0.0.1:1: {refused}");
        assert_eq!(read(code, &coordinator).broker, "127.0.0.1:1");
    }

    #[test]
    fn what_names_no_broker_is_no_reason() {
        let down = Some(RDKafkaErrorCode::AllBrokersDown);
        assert_eq!(Reason::read(down, "1/1 brokers are down"), None);
        assert_eq!(Reason::read(None, "something"), None);
    }
}
