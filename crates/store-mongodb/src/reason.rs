//! Turns an error of the driver into one sentence: which server, why, and what to check. The driver's own messages
//! contain everything that it knows about the cluster.
//!
//! The sentence is made from the error's text, because the driver gives no other information about unusable servers
//! (mongodb 3.9).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use mongodb::{
    error::{Error, ErrorKind},
    event::{EventHandler, sdam::SdamEvent},
};

/// The longest quotation of a foreign text, in characters.
const LONGEST_QUOTE: usize = 160;

/// The cause of an error. The order is from transient to what somebody must fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Other,
    Silent,
    Closed,
    ClosedPort,
    UnknownName,
    NoTls,
    Refused,
    Expired,
    HostName,
    Untrusted,
    Login,
}

/// The sentence for an error.
pub(super) fn sentence(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::ServerSelection { message, .. } => selection(message),
        ErrorKind::ConnectionPoolCleared { message, .. } => {
            of_servers(message).unwrap_or_else(|| of_text(None, message))
        }
        ErrorKind::Command(command) if command.code == UNAUTHORIZED => format!(
            "MongoDB does not let this user do that ({}); give the user the role readWrite on the service's own database",
            shortened(&command.message)
        ),
        ErrorKind::Command(command) => format!(
            "MongoDB refuses a command: {} (code {})",
            shortened(&command.message),
            command.code
        ),
        kind => of_text(None, &kind.to_string()),
    }
}

/// The code for a command that the user is not authorized to run.
const UNAUTHORIZED: i32 = 13;

/// No suitable server was found within the time limit: the reasons, or that no reachable server accepts writes.
fn selection(message: &str) -> String {
    of_servers(message).unwrap_or_else(|| {
        if message.contains("No available servers") {
            return "no server of MongoDB is known yet; check the hosts in the connection string"
                .to_owned();
        }
        let mut told = "no member of MongoDB's replica set is primary".to_owned();
        let members: Vec<&str> = servers(message).map(|(address, _)| address).collect();
        if !members.is_empty() {
            let _ = write!(told, " ({} answer)", members.join(", "));
        }
        told.push_str("; an election takes some seconds, otherwise too many members are away, or replicaSet in the connection string is another set's");
        told
    })
}

/// The servers in the driver's description of a cluster, each with the text after its address.
fn servers(message: &str) -> impl Iterator<Item = (&str, &str)> {
    message.split("{ Address: ").skip(1).filter_map(|server| {
        let (address, rest) = server.split_once(", Type: ")?;
        Some((address, rest))
    })
}

/// Why servers are unusable, if some are: the reason to fix first, and how many more there are.
fn of_servers(message: &str) -> Option<String> {
    // If there is a primary, the errors of other servers do not matter.
    if message.contains("Type: RsPrimary") || message.contains("Type: Primary") {
        return None;
    }
    to_mend(
        servers(message)
            .filter_map(|(address, rest)| Some((address, rest.split_once("Error: ")?.1))),
    )
}

/// From the errors of several servers, the one to fix first, and how many more there are.
fn to_mend<'a>(failed: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let failed: Vec<_> = failed.collect();
    let (address, error) = failed.iter().max_by_key(|(_, error)| cause(error))?;
    let mut told = of_text(Some(address), error);
    if failed.len() > 1 {
        let _ = write!(told, " (and {} more)", failed.len() - 1);
    }
    Some(told)
}

/// Why the driver's monitoring of the servers fails, for callers that do not wait until an operation times out. Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures(Arc<Mutex<BTreeMap<String, String>>>);

impl Failures {
    /// The event handler for the driver.
    pub(super) fn listener(&self) -> EventHandler<SdamEvent> {
        let failures = self.clone();
        EventHandler::callback(move |event| {
            let mut known = failures.0.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                SdamEvent::ServerHeartbeatFailed(failed) => {
                    known.insert(
                        failed.server_address.to_string(),
                        failed.failure.kind.to_string(),
                    );
                }
                SdamEvent::ServerHeartbeatSucceeded(succeeded) => {
                    known.remove(&succeeded.server_address.to_string());
                }
                SdamEvent::ServerClosed(closed) => {
                    known.remove(&closed.address.to_string());
                }
                _ => {}
            }
        })
    }

    /// The sentence, if a server is unusable.
    pub(super) fn sentence(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        to_mend(
            known
                .iter()
                .map(|(address, error)| (address.as_str(), error.as_str())),
        )
    }
}

fn cause(text: &str) -> Cause {
    let has = |part: &str| text.contains(part);
    if has("Authentication failed") || has("SCRAM failure") || has("bad auth") {
        Cause::Login
    } else if has("NotValidForName") || has("not valid for name") {
        Cause::HostName
    } else if has("Expired") || has("NotValidYet") || has("certificate expired") {
        Cause::Expired
    } else if has("invalid peer certificate") || has("UnknownIssuer") {
        Cause::Untrusted
    } else if has("fatal alert") {
        Cause::Refused
    } else if has("InvalidContentType") || has("corrupt message") {
        Cause::NoTls
    } else if has("lookup address")
        || has("DNS resolution")
        || has("Name or service not known")
        || has("no record")
    {
        Cause::UnknownName
    } else if has("Connection refused") {
        Cause::ClosedPort
    } else if has("timed out") || has("timeout") || has("deadline has elapsed") {
        Cause::Silent
    } else if has("reset by peer") || has("end of file") || has("eof") || has("Broken pipe") {
        Cause::Closed
    } else {
        Cause::Other
    }
}

fn of_text(address: Option<&str>, text: &str) -> String {
    let server = address.map_or_else(|| "MongoDB".to_owned(), |at| format!("MongoDB at {at}"));
    match cause(text) {
        Cause::Login => format!(
            "{server} refuses the login; correct user, password and authSource in the connection string (in a password @ : / % are written %40 %3A %2F %25)"
        ),
        Cause::HostName => format!(
            "the certificate of {server} is for another host name; use a name that stands in the certificate in the connection string"
        ),
        Cause::Expired => format!(
            "the certificate of {server} is not valid at this time; renew it, or set this machine's clock"
        ),
        Cause::Untrusted => format!(
            "the certificate of {server} is not trusted; name a file with the certificate of its authority (PEM) with tlsCAFile in the connection string"
        ),
        Cause::Refused => format!(
            "{server} ends the TLS handshake ({}); check Atlas's IP access list, or whether it wants a certificate of the client",
            shortened(text)
        ),
        Cause::NoTls => format!(
            "{server} does not speak TLS; take tls=true out of the connection string, or take its port for TLS"
        ),
        Cause::UnknownName => format!(
            "the host name of {server} cannot be resolved; correct it in the connection string, or mend the DNS"
        ),
        Cause::ClosedPort => format!(
            "{server} refuses the connection: nothing listens on that port; start MongoDB, or correct host and port in the connection string"
        ),
        Cause::Silent => format!(
            "{server} does not answer in time; check that firewall, network policy and Atlas's IP access list let this machine through"
        ),
        Cause::Closed => format!(
            "{server} ended the connection; it may be stopping just now, or want TLS (tls=true in the connection string)"
        ),
        Cause::Other => format!("{server} cannot be used: {}", shortened(text)),
    }
}

/// A text without the driver's additions, and limited in length.
fn shortened(text: &str) -> String {
    let text = text.trim_start_matches("Kind: ");
    let text = text.split_once(", labels: ").map_or(text, |(said, _)| said);
    let mut short: String = text.chars().take(LONGEST_QUOTE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(errors: &[(&str, &str)]) -> String {
        let servers: Vec<String> = errors
            .iter()
            .map(|(address, error)| {
                format!("{{ Address: {address}, Type: Unknown, Error: Kind: {error}, labels: {{}}, source: None, server response: None }}")
            })
            .collect();
        format!(
            "Server selection timeout: No available servers. Topology: {{ Type: ReplicaSetNoPrimary, Set Name: tandem, Servers: [ {} ] }}",
            servers.join(", ")
        )
    }

    #[test]
    fn a_server_that_cannot_be_used_is_one_sentence_with_its_address() {
        for (error, said) in [
            (
                "I/O error: Connection refused (os error 111)",
                "nothing listens on that port",
            ),
            (
                "An error occurred during DNS resolution: failed to lookup address information: Name or service not known",
                "cannot be resolved",
            ),
            (
                "I/O error: invalid peer certificate: UnknownIssuer",
                "is not trusted; name a file",
            ),
            (
                "I/O error: invalid peer certificate: NotValidForName",
                "for another host name",
            ),
            (
                "I/O error: received corrupt message of type InvalidContentType",
                "does not speak TLS",
            ),
            (
                "SCRAM failure: SCRAM failure: Authentication failed.",
                "refuses the login; correct user, password",
            ),
            ("I/O error: timed out", "does not answer in time"),
            ("I/O error: unexpected end of file", "ended the connection"),
        ] {
            let told = selection(&unavailable(&[("db.example.com:27017", error)]));
            assert!(
                told.contains(said) && told.contains("db.example.com:27017"),
                "{told}"
            );
            assert!(told.len() < 250 && !told.contains("Topology"), "{told}");
        }
    }

    #[test]
    fn of_many_servers_the_one_to_mend_is_told() {
        let told = selection(&unavailable(&[
            ("a:1", "I/O error: timed out"),
            ("b:1", "I/O error: invalid peer certificate: UnknownIssuer"),
            ("c:1", "I/O error: Connection refused (os error 111)"),
        ]));
        assert!(
            told.contains("b:1") && told.ends_with("(and 2 more)"),
            "{told}"
        );
    }

    #[test]
    fn a_set_without_a_primary_says_so() {
        let told = selection(
            "Server selection timeout: None of the available servers suitable for criteria ReadPreference(Primary). Topology: { Type: ReplicaSetNoPrimary, Set Name: tandem, Servers: [ { Address: a:1, Type: RsSecondary, Average RTT: 1ms } ] }",
        );
        assert!(
            told.starts_with("no member of MongoDB's replica set is primary (a:1 answer)"),
            "{told}"
        );
    }

    #[test]
    fn what_is_not_known_is_quoted_and_short() {
        let told = of_text(None, &format!("Kind: {}, labels: {{}}", "x".repeat(1_000)));
        assert!(told.len() < 220, "{told}");
        assert!(told.starts_with("MongoDB cannot be used: xxx"), "{told}");
    }
}
