//! Examines the stores: MongoDB and its clock, or the embedded ones.

use secrecy::ExposeSecret;
use tandem_store_mongodb::inspect::{self, Server};

use super::{DoctorSettings, Finding};
use crate::running::{Running, hosts_of};

/// The databases of the two services.
const DATABASES: [&str; 2] = ["accounts", "orders"];
/// Clocks that differ by more than this many milliseconds are reported.
const APART_MS: i64 = 1_000;

pub(super) async fn examine(doctor: &DoctorSettings, running: Option<&Running>) -> Vec<Finding> {
    let Some(uri) = &doctor.mongodb_uri else {
        return vec![match running {
            Some(running) if running.store != "embedded" => Finding::doubtful(
                "store",
                format!(
                    "the running system keeps its data in {}, whose user and password are written down nowhere",
                    running.store
                ),
                "give this command the same TANDEM_MONGODB_URI to have it examined",
            ),
            _ => Finding::good(
                "store",
                "embedded, in the data directory; --mongodb-uri names a MongoDB",
            ),
        }];
    };
    // Trimmed as the services do it: a Kubernetes Secret may end in a newline.
    let uri = uri.expose_secret().trim();
    let hosts = hosts_of(uri);
    let mut findings = Vec::new();
    for database in DATABASES {
        match inspect::inspect(uri, database).await {
            Ok(server) if findings.is_empty() => findings.extend(judge(&hosts, &server)),
            Ok(_) => {}
            Err(error) => {
                findings.push(Finding::bad(
                    "MongoDB",
                    format!("{hosts}, database {database}: {error}"),
                    "see --mongodb-uri (TANDEM_MONGODB_URI): host, port, TLS, user and password, and that this machine is let in",
                ));
                break;
            }
        }
    }
    findings
}

fn judge(hosts: &str, server: &Server) -> Vec<Finding> {
    let told = format!("{hosts} answers; version {}", server.version);
    let major = server.version.split('.').next();
    let old = major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major < 6);
    let first = match &server.set {
        _ if old => Finding::bad(
            "MongoDB",
            told,
            "take version 6 or newer: it is what this program is tested with",
        ),
        Some(set) => Finding::good("MongoDB", format!("{told}, replica set {set}")),
        None => Finding::doubtful(
            "MongoDB",
            format!("{told}, a server alone"),
            "good for trying; for real use take a replica set, so that data outlives a server",
        ),
    };
    let ahead = server.clock_ahead_ms;
    let apart = ahead.abs() - server.uncertain_ms;
    let clock = if apart > APART_MS {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        Finding::bad(
            "clock",
            format!(
                "the clock of MongoDB is {:.1} s {way} this machine's",
                ahead.abs() as f64 / 1_000.0
            ),
            "set the clocks of all machines by NTP",
        )
    } else {
        Finding::good("clock", "MongoDB's goes as this machine's")
    };
    vec![first, clock]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn verdicts(version: &str, set: Option<&str>, clock_ahead_ms: i64) -> Vec<Verdict> {
        let server = Server {
            version: version.to_owned(),
            set: set.map(str::to_owned),
            clock_ahead_ms,
            uncertain_ms: 10,
        };
        judge("mongodb://a", &server)
            .iter()
            .map(|finding| finding.verdict)
            .collect()
    }

    #[test]
    fn a_server_is_judged_by_its_version_its_set_and_its_clock() {
        use Verdict::{Bad, Doubtful, Good};
        assert_eq!(verdicts("7.0.14", Some("rs0"), 3), [Good, Good]);
        assert_eq!(verdicts("7.0.14", None, -900), [Doubtful, Good]);
        assert_eq!(verdicts("5.0.1", Some("rs0"), 0), [Bad, Good]);
        assert_eq!(verdicts("8.0.1", Some("rs0"), 61_000), [Good, Bad]);
        assert_eq!(verdicts("8.0.1", Some("rs0"), -61_000), [Good, Bad]);
    }
}
