//! `tandem doctor`: examines everything that the system needs, whether it runs or not, and says what to repair.
//!
//! - [`settings`]: flags, environment and file.
//! - [`machine`]: data directory, disk, ports, clock.
//! - [`keys`]: the sealing key and the signing keys.
//! - [`system`]: the services of a running `tandem up`.
//! - [`kafka`] and [`store`]: the servers, their topics and their clocks.
//!
//! It changes nothing, except that it writes a file into the data directory and removes it.

mod kafka;
mod keys;
mod machine;
mod settings;
mod store;
mod system;

use std::{fmt, time::Duration};

use anyhow::bail;
use clap::Args;
use secrecy::SecretString;

use crate::terminal::{self, has_colours, one_line};

use crate::operator::{KafkaPlace, Place, Services};

/// Time limit for one part of the examination. The requests in it have shorter limits of their own.
const LIMIT: Duration = Duration::from_secs(30);

/// What to look at.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorSettings {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    services: Services,

    #[command(flatten)]
    kafka: KafkaPlace,

    /// MongoDB in place of the embedded stores. Keep its password out of the command line: use the environment.
    #[arg(
        long,
        env = "TANDEM_MONGODB_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    mongodb_uri: Option<SecretString>,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is wrong.
    Good,
    /// It works, but something should be changed.
    Doubtful,
    /// It does not work.
    Bad,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    subject: String,
    /// What was found.
    found: String,
    /// What to do about it.
    mend: Option<String>,
}

impl Finding {
    fn good(subject: &str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Good,
            subject: subject.to_owned(),
            found: found.into(),
            mend: None,
        }
    }

    fn doubtful(subject: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Doubtful,
            mend: Some(mend.into()),
            ..Self::good(subject, found)
        }
    }

    fn bad(subject: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            mend: Some(mend.into()),
            ..Self::good(subject, found)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:<15} {}",
            one_line(&self.subject),
            one_line(&self.found)
        )?;
        match &self.mend {
            Some(mend) => write!(formatter, "\n{:>24}{}", "-> ", one_line(mend)),
            None => Ok(()),
        }
    }
}

/// Examines everything. Succeeds when nothing is bad.
///
/// # Errors
/// When something is bad. The message says how many findings are.
pub(crate) async fn run(
    doctor: DoctorSettings,
    unknown_variables: Vec<String>,
) -> anyhow::Result<()> {
    let found = doctor.place.found();
    let mut all = settings::examine(unknown_variables);
    all.extend(machine::examine(&doctor, &found));
    all.extend(keys::examine(&doctor, &found));
    tell(&all);
    let (system, kafka, store) = futures::join!(
        limited("system", system::examine(&doctor, &found)),
        limited("Kafka", kafka::examine(&doctor, &found)),
        limited("store", store::examine(&doctor, found.alive())),
    );
    for findings in [system, kafka, store] {
        tell(&findings);
        all.extend(findings);
    }
    let count = |verdict| {
        all.iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    match (count(Verdict::Bad), count(Verdict::Doubtful)) {
        (0, 0) => terminal::say("\neverything is as it should be"),
        (0, doubtful) => terminal::say(&format!("\nit works; {doubtful} to look at")),
        (bad, _) => bail!("{bad} to mend, see above"),
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
async fn limited(subject: &str, examination: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(LIMIT, examination)
        .await
        .unwrap_or_else(|_| {
            vec![Finding::bad(
                subject,
                format!("could not be examined within {} s", LIMIT.as_secs()),
                "see whether its server is overloaded, or something drops packets on the way to it",
            )]
        })
}

fn tell(findings: &[Finding]) {
    let has_colours = has_colours();
    for finding in findings {
        let (word, colour) = match finding.verdict {
            Verdict::Good => ("ok", "32"),
            Verdict::Doubtful => ("look", "33"),
            Verdict::Bad => ("MEND", "31"),
        };
        let word = format!("{word:<5}");
        let word = if has_colours {
            format!("\x1b[1;{colour}m{word}\x1b[0m")
        } else {
            word
        };
        terminal::tell(&format!("{word} {finding}"));
    }
}
