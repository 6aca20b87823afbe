//! Finds environment variables that look like settings and are not. Without a warning, the default of a misspelt
//! setting would silently stay in force.

use std::collections::BTreeSet;

use clap::Command;

/// The prefix of settings in the environment.
const PREFIX: &str = "TANDEM_";
/// Prefixes of variables that the project's own tests and tools read.
const OTHERS: [&str; 5] = [
    "TANDEM_TEST_",
    "TANDEM_REQUIRE_",
    "TANDEM_TORTURE_",
    "TANDEM_BENCH_",
    "TANDEM_CI_",
];
/// The least likeness (Jaro-Winkler) at which a setting is suggested as the intended one.
const ALIKE: f64 = 0.9;

/// A sentence for each variable with the prefix of settings that is not a setting.
pub(crate) fn unknown(
    command: &Command,
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    variables
        .filter(|(name, value)| {
            name.starts_with(PREFIX)
                && !known.contains(name)
                && !OTHERS.iter().any(|other| name.starts_with(other))
                && !is_of_kubernetes(name, value)
        })
        .map(|(name, _)| {
            let nearest = known
                .iter()
                .map(|setting| (strsim::jaro_winkler(&name, setting), setting))
                .max_by(|(left, _), (right, _)| left.total_cmp(right))
                .filter(|(likeness, _)| *likeness >= ALIKE);
            match nearest {
                Some((_, setting)) => format!(
                    "{name} in the environment is no setting and has no effect; did you mean {setting}?"
                ),
                None => format!(
                    "{name} in the environment is no setting and has no effect; --help names those that there are"
                ),
            }
        })
        .collect()
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        known.extend(
            argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    for sub in command.get_subcommands() {
        collect(sub, known);
    }
}

/// Whether Kubernetes sets the variable. It puts the addresses of services into the environment: `NAME_SERVICE_HOST`,
/// `NAME_PORT=tcp://…` and others.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP")
        || name.contains("_UDP")
        || (name.ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn told(name: &str, value: &str) -> Vec<String> {
        let up = Command::new("up").arg(Arg::new("gateway").env("TANDEM_GATEWAY_PORT"));
        let command = Command::new("tandem").subcommand(up);
        unknown(&command, [(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn a_misspelt_setting_is_told_with_the_one_that_was_meant() {
        let said = told("TANDEM_GATWAY_PORT", "1");
        assert!(
            said[0].contains("did you mean TANDEM_GATEWAY_PORT?"),
            "{said:?}"
        );
        assert_eq!(told("TANDEM_COLOUR", "red").len(), 1);
    }

    #[test]
    fn settings_and_what_others_set_are_not_told_of() {
        for (name, value) in [
            ("TANDEM_GATEWAY_PORT", "1"),
            ("TANDEM_TEST_MONGOD", "/x"),
            ("TANDEM_SERVICE_HOST", "10.0.0.1"),
            ("TANDEM_GATWAY_PORT", "tcp://10.0.0.1:80"),
            ("TANDEM_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("HOME", "/root"),
        ] {
            assert!(told(name, value).is_empty(), "{name}");
        }
    }
}
