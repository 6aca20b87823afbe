//! The operator's commands, each in a harmless form. An authorized caller is answered; any other gets one of the two
//! refusals.

use std::{collections::BTreeSet, path::Path};

use serde_json::json;
use tandem_authentication::Scope;

use super::{LAST_NAME, OWN, World, clients::all_scopes_but, tally::Tally};
use crate::support::{Process, command::Said, tandem_command};

/// A row of the table.
pub struct Command {
    pub name: &'static str,
    pub decides: Decides,
    /// Each form of the command, with a part of the answer that an authorized caller gets.
    forms: &'static [Form],
}

type Form = (&'static [&'static str], &'static str);

/// Who decides whether a command may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decides {
    /// The services, by the token.
    Services,
    /// Kafka, by its own credentials. Tokens play no role.
    Kafka,
    /// Nobody, because the command asks only for public data.
    Nobody,
}

impl Decides {
    /// The cell in the column of a scope, or of no token.
    pub fn cell(self, column: Option<Scope>) -> &'static str {
        match self {
            Self::Services if column == Some(Scope::Operations) => "✓",
            Self::Services => "–",
            Self::Kafka => "Kafka's",
            Self::Nobody => "✓",
        }
    }
}

const fn of_services(name: &'static str, forms: &'static [Form]) -> Command {
    Command {
        name,
        decides: Decides::Services,
        forms,
    }
}

/// The name of a dead letter that does not exist.
const LETTER: &str = "nobody/none/0/0";
/// Placeholders for the file that [`copies`] writes and for the customer [`OWN`].
const FILE: &str = "FILE";
const CUSTOMER: &str = "CUSTOMER";

pub const COMMANDS: [Command; 16] = [
    of_services(
        "tandem rebuild",
        &[
            (&["rebuild", "accounts"], "events read"),
            (&["rebuild", "orders"], "events read"),
        ],
    ),
    of_services(
        "tandem restore",
        &[
            (&["restore", "accounts", FILE], "does not open"),
            (&["restore", "orders", FILE], "does not open"),
        ],
    ),
    of_services(
        "tandem log status",
        &[
            (&["log", "status", "accounts"], "the logs are those"),
            (&["log", "status", "orders"], "the logs are those"),
        ],
    ),
    of_services(
        "tandem log accept",
        &[(&["log", "accept", "orders"], "the logs are taken")],
    ),
    of_services(
        "tandem log restore",
        &[(&["log", "restore", "orders"], "written to the log")],
    ),
    of_services(
        "tandem keys waiting",
        &[(&["keys", "waiting"], "no event waits")],
    ),
    of_services(
        "tandem keys publish",
        &[(&["keys", "publish"], "published")],
    ),
    of_services(
        "tandem keys rotate",
        &[(&["keys", "rotate"], "everything is sealed with")],
    ),
    of_services(
        "tandem dead-letters list",
        &[
            (&["dead-letters", "list"], "no dead letters"),
            (
                &["dead-letters", "list", "--service", "accounts"],
                "no dead letters",
            ),
        ],
    ),
    of_services(
        "tandem dead-letters show",
        &[(&["dead-letters", "show", LETTER], "no dead letter")],
    ),
    of_services(
        "tandem dead-letters retry",
        &[(
            &["dead-letters", "retry", "--key", "nobody"],
            "no dead letters",
        )],
    ),
    of_services(
        "tandem dead-letters discard",
        &[
            (&["dead-letters", "discard", LETTER], "no such dead letter"),
            (
                &["dead-letters", "discard", "--key", "nobody"],
                "no dead letters",
            ),
        ],
    ),
    of_services(
        "tandem dead-letters status",
        &[(&["dead-letters", "status"], "no work on dead letters")],
    ),
    Command {
        name: "tandem audit customer",
        decides: Decides::Kafka,
        forms: &[(&["audit", "customer", CUSTOMER], "CREATED")],
    },
    Command {
        name: "tandem events tail",
        decides: Decides::Kafka,
        forms: &[(
            &["events", "tail", "--since", "beginning", "--until-end"],
            OWN,
        )],
    },
    Command {
        name: "tandem doctor",
        decides: Decides::Nobody,
        forms: &[(&["doctor"], "is up")],
    },
];

/// Commands that do not call a running system: they start one, or work on files.
const OF_NO_SYSTEM: [&str; 10] = [
    "up",
    "accounts",
    "orders",
    "broker",
    "router",
    "schema",
    "completions",
    "man",
    "documents",
    "token",
];

/// The directory in which commands run. It has no sealing key, because a sealing key would replace a token.
struct Place<'a> {
    world: &'a World,
    directory: &'a Path,
}

impl Place<'_> {
    fn run(&self, words: &[&str], token: Option<&str>) -> Said {
        let file = self.directory.join("copies.ndjson").display().to_string();
        let words = words.iter().map(|word| match *word {
            FILE => file.as_str(),
            CUSTOMER => OWN,
            other => other,
        });
        let tandem = &self.world.tandem;
        let mut command = tandem_command();
        command
            .args(words)
            .arg("--data-dir")
            .arg(self.directory)
            .env("TANDEM_ACCOUNTS_URL", tandem.accounts_url(""))
            .env("TANDEM_ORDERS_URL", tandem.orders_url(""))
            .env("TANDEM_KAFKA_BROKERS", tandem.bootstrap_servers());
        if let Some(token) = token {
            command.env("TANDEM_TOKEN", token);
        }
        Said::of(Process::start(&mut command))
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It was executed, or refused for a reason other than authorization.
    Answered,
    Unauthenticated,
    Forbidden,
    /// It did not even send a request, because it has no credentials.
    WithNothingToShow,
    Otherwise(String),
}

impl Ended {
    fn of(said: &Said, expected: &str) -> Self {
        let errors = &said.errors;
        if said.output.contains(expected) || errors.contains(expected) {
            Self::Answered
        } else if !said.succeeded && errors.contains("(401 Unauthorized)") {
            Self::Unauthenticated
        } else if !said.succeeded && errors.contains("(403 Forbidden)") {
            Self::Forbidden
        } else if !said.succeeded && errors.contains("there is no sealing key") {
            Self::WithNothingToShow
        } else {
            Self::Otherwise(format!("{}{errors}", said.output))
        }
    }
}

/// Tries every command with `operations`, with all other scopes, with a bad token, and without credentials.
pub fn check(world: &World, tally: &mut Tally) {
    check_that_all_are_rows();
    let directory = tempfile::tempdir().unwrap();
    let place = Place {
        world,
        directory: directory.path(),
    };
    copies(directory.path());
    let operations = world.issuer.token("operator", Scope::Operations.as_str());
    let others = world.issuer.token(
        OWN,
        &format!("{} self", all_scopes_but(&[Scope::Operations])),
    );
    // The kinds of bad tokens take turns.
    let bad = world.issuer.bad("operator", Scope::Operations.as_str());
    let mut turns = bad.iter().cycle();
    for command in COMMANDS {
        for (words, expected) in command.forms {
            let (kind, bad) = turns.next().unwrap();
            let refused_as = |refusal| match command.decides {
                Decides::Services => refusal,
                Decides::Kafka | Decides::Nobody => Ended::Answered,
            };
            for (who, token, wanted) in [
                ("with nothing", None, refused_as(Ended::WithNothingToShow)),
                (*kind, Some(bad), refused_as(Ended::Unauthenticated)),
                (
                    "all other scopes",
                    Some(&others),
                    refused_as(Ended::Forbidden),
                ),
                ("operations", Some(&operations), Ended::Answered),
            ] {
                let said = place.run(words, token.map(String::as_str));
                let told = || format!("tandem {}, {who}", words.join(" "));
                tally.check(told, Ended::of(&said, expected), wanted);
                // Without the sealing key no personal data may be shown.
                let is_shown = said.output.contains(LAST_NAME) || said.errors.contains(LAST_NAME);
                tally.hold(|| format!("{} tells a name", told()), !is_shown);
            }
        }
    }
}

/// Writes a file for `restore`, with a copy that no key opens.
fn copies(directory: &Path) {
    let copy = json!({
        "target": "nothing", "lack": "unknown", "id": "nobody", "revision": 1, "version": "", "sealed": "AAAA",
    });
    std::fs::write(directory.join("copies.ndjson"), format!("{copy}\n")).unwrap();
}

/// Every command of the program must be a row, or not call a running system.
fn check_that_all_are_rows() {
    let mut rows = BTreeSet::new();
    for command in COMMANDS {
        rows.insert(command.name.trim_start_matches("tandem ").to_owned());
    }
    let mut known = BTreeSet::new();
    for command in subcommands(&[]) {
        if OF_NO_SYSTEM.contains(&command.as_str()) {
            continue;
        }
        let further = subcommands(&[command.as_str()]);
        if further.is_empty() {
            known.insert(command);
            continue;
        }
        for word in further {
            known.insert(format!("{command} {word}"));
        }
    }
    assert_eq!(known, rows, "the commands of the program are the rows");
}

/// The subcommands of these words, as listed by their help.
fn subcommands(words: &[&str]) -> Vec<String> {
    let said = Said::of(Process::start(tandem_command().args(words).arg("-h")));
    assert!(said.succeeded, "{words:?}: {}", said.errors);
    said.output
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that continue the previous one are indented further.
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .map(str::to_owned)
        .collect()
}
