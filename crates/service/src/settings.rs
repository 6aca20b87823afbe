//! Layered configuration: flags over environment over one TOML file, all of it described by the same clap arguments.
//!
//! The file's keys are the flags' names: `host = "0.0.0.0"` is `--host`, and a table is a prefix, so `[kafka]` with
//! `brokers = ["a:9092"]` is `--kafka-brokers a:9092`. A table named like a subcommand holds that subcommand's flags:
//! `[orders]` with `port = 8085` is `tandem orders --port 8085` (and `tandem up --orders-port 8085`). A table named in the
//! plural of a repeatable flag holds its `KEY=VALUE` pairs: `[kafka.properties]` with `"security.protocol" = "SASL_SSL"` is
//! `--kafka-property security.protocol=SASL_SSL`; there file, environment and flags are merged key by key.
//!
//! The values of the file become the arguments' defaults, so clap itself sees to the precedence and complains about a bad
//! value by name.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

pub use tandem_runtime::duration::parse_duration;

/// The environment variable that names the file.
pub const CONFIG_ENV: &str = "TANDEM_CONFIG";

/// The flag that names the configuration file. Flatten it into the outermost parser.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFile {
    /// A TOML file with settings; flags and the environment override it.
    #[arg(long, env = CONFIG_ENV, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// Why the configuration does not fit.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// The file has a key that no setting has.
    #[error("the configuration file {} has the unknown key `{key}`{}", path.display(), Nearest(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The file has a value of a kind that the setting does not take.
    #[error("the configuration file {} has {found} for `{key}`; write {expected}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What it holds.
        found: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// A flag, a variable or a value of the file is wrong; also `--help` and `--version`.
    #[error("{0}")]
    Arguments(#[from] clap::Error),
}

struct Nearest<'a>(Option<&'a str>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(formatter, "; did you mean `{key}`?"),
            None => formatter.write_str("; --help lists the settings"),
        }
    }
}

impl SettingsError {
    /// Prints the error (or the help that was asked for) and ends the process, as clap does.
    pub fn exit(self) -> ! {
        match self {
            Self::Arguments(error) => error.exit(),
            other => {
                clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{other}\n")).exit()
            }
        }
    }
}

/// Reads the process's configuration; what does not fit ends the process with a sentence that says which and why.
pub fn parse<T: Parser>() -> T {
    match try_parse_from(std::env::args_os()) {
        Ok(settings) => settings,
        Err(error) => error.exit(),
    }
}

/// Reads configuration from the given arguments (the first one is the program's name), the environment and the file that
/// either of them names.
///
/// # Errors
///
/// [`SettingsError`] says which setting does not fit, and why.
pub fn try_parse_from<T, I, A>(arguments: I) -> Result<T, SettingsError>
where
    T: Parser,
    I: IntoIterator<Item = A>,
    A: Into<OsString>,
{
    let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let command = T::command();
    let Some(path) = config_path(&arguments) else {
        return Ok(T::try_parse_from(arguments)?);
    };
    let entries = read_file(&path)?;
    check_keys(&path, &command, &entries)?;
    let command = with_defaults(&path, command, &[], &entries)?;
    let matches = command
        .clone()
        .try_get_matches_from(&arguments)
        .map_err(|error| name_file(error, &path, &entries))?;
    let pairs = pairs_to_merge(&command, &matches, &entries);
    let matches = if pairs.is_empty() {
        matches
    } else {
        arguments.extend(pairs);
        command.try_get_matches_from(&arguments)?
    };
    Ok(T::from_arg_matches(&matches)?)
}

/// The file that flags or environment name. It must be known before clap reads the rest.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        if argument == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--config="))
        {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os(CONFIG_ENV)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// One value of the file.
struct Entry {
    path: Vec<String>,
    value: toml::Value,
}

impl Entry {
    fn key(&self) -> String {
        self.path.join(".")
    }
}

fn read_file(path: &Path) -> Result<Vec<Entry>, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| SettingsError::NotToml {
                path: path.to_owned(),
                message: error.to_string(),
            })?;
    let mut entries = Vec::new();
    flatten(&mut Vec::new(), table, &mut entries);
    Ok(entries)
}

fn flatten(prefix: &mut Vec<String>, table: toml::Table, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        prefix.push(key);
        match value {
            toml::Value::Table(inner) => flatten(prefix, inner, entries),
            value => entries.push(Entry {
                path: prefix.clone(),
                value,
            }),
        }
        prefix.pop();
    }
}

/// How an entry of the file meets an argument.
enum Meeting {
    /// The entry holds the argument's value.
    Value,
    /// The entry is one pair of a repeatable argument; this is the pair's key.
    Pair(String),
}

/// Whether an entry is meant for an argument of the command that is reached by these subcommand names.
fn meets(entry: &Entry, command_path: &[String], argument: &Arg) -> Option<Meeting> {
    let long = argument.get_long()?;
    if long == "config" || long == "help" || long == "version" {
        return None;
    }
    // A table may name the subcommand, or be no more than a prefix of the flag.
    let scoped = (!command_path.is_empty() && entry.path.starts_with(command_path))
        .then(|| entry.path.split_at(command_path.len()).1);
    let plain = Some(entry.path.as_slice());
    [scoped, plain].into_iter().flatten().find_map(|path| {
        if path.join("-").replace('_', "-") == long {
            return Some(Meeting::Value);
        }
        if !matches!(argument.get_action(), ArgAction::Append) {
            return None;
        }
        (1..path.len()).find_map(|split| {
            let (table, key) = path.split_at(split);
            let plural = table.join("-").replace('_', "-");
            (singular(&plural).as_deref() == Some(long)).then(|| Meeting::Pair(key.join(".")))
        })
    })
}

fn singular(plural: &str) -> Option<String> {
    plural
        .strip_suffix("ies")
        .map(|stem| format!("{stem}y"))
        .or_else(|| plural.strip_suffix('s').map(str::to_owned))
}

/// Calls `visit` for the command and each subcommand, with the names that lead to it.
fn walk(command: &Command, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Command)) {
    visit(path, command);
    for sub in command.get_subcommands() {
        path.push(sub.get_name().to_owned());
        walk(sub, path, visit);
        path.pop();
    }
}

fn check_keys(file: &Path, command: &Command, entries: &[Entry]) -> Result<(), SettingsError> {
    for entry in entries {
        let mut known = false;
        let mut keys = BTreeSet::new();
        walk(command, &mut Vec::new(), &mut |path, command| {
            for argument in command.get_arguments() {
                known |= meets(entry, path, argument).is_some();
                if let Some(long) = argument.get_long() {
                    keys.insert(long.to_owned());
                    if !path.is_empty() {
                        keys.insert(format!("{}.{long}", path.join(".")));
                    }
                }
            }
        });
        if known {
            continue;
        }
        let key = entry.key();
        let nearest = nearest_key(entry, &keys);
        return Err(SettingsError::UnknownKey {
            path: file.to_owned(),
            key,
            nearest,
        });
    }
    Ok(())
}

/// The known key that looks most like the entry's, written the way the entry is: with the entry's tables as tables.
fn nearest_key(entry: &Entry, known: &BTreeSet<String>) -> Option<String> {
    const ALIKE: f64 = 0.75;
    let plain = |key: &str| key.replace(['.', '_'], "-");
    let wanted = plain(&entry.key());
    let (likeness, nearest) = known
        .iter()
        .map(|key| (strsim::jaro_winkler(&wanted, &plain(key)), key))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    if likeness < ALIKE {
        return None;
    }
    let tables = &entry.path[..entry.path.len().saturating_sub(1)];
    let prefix = format!("{}-", plain(&tables.join(".")));
    Some(match nearest.strip_prefix(&prefix) {
        Some(last) if !tables.is_empty() => format!("{}.{last}", tables.join(".")),
        _ => nearest.clone(),
    })
}

/// Makes the file's values the defaults of the arguments that they are meant for.
fn with_defaults(
    file: &Path,
    mut command: Command,
    command_path: &[String],
    entries: &[Entry],
) -> Result<Command, SettingsError> {
    let arguments: Vec<Arg> = command.get_arguments().cloned().collect();
    for argument in &arguments {
        let mut values: Vec<&'static str> = Vec::new();
        for entry in entries {
            match meets(entry, command_path, argument) {
                Some(Meeting::Value) => {
                    // The subcommand's own table comes before a general key of the same meaning.
                    let is_scoped =
                        !command_path.is_empty() && entry.path.starts_with(command_path);
                    if values.is_empty() || is_scoped {
                        values = value_texts(file, entry, argument)?;
                    }
                }
                Some(Meeting::Pair(key)) => {
                    values.push(kept(format!("{key}={}", single_text(file, entry)?)));
                }
                None => {}
            }
        }
        if !values.is_empty() {
            command = command.mut_arg(argument.get_id(), |argument| {
                argument.required(false).default_values(values)
            });
        }
    }
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        let mut path = command_path.to_vec();
        path.push(name.clone());
        let mut outcome = Ok(());
        command = command.mut_subcommand(&name, |sub| {
            match with_defaults(file, sub.clone(), &path, entries) {
                Ok(changed) => changed,
                Err(error) => {
                    outcome = Err(error);
                    sub
                }
            }
        });
        outcome?;
    }
    Ok(command)
}

/// Clap holds defaults as static text. The configuration is read once per process, so what is kept is at most the file.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn value_texts(
    file: &Path,
    entry: &Entry,
    argument: &Arg,
) -> Result<Vec<&'static str>, SettingsError> {
    let takes_several = matches!(argument.get_action(), ArgAction::Append)
        || argument
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1);
    match &entry.value {
        toml::Value::Array(elements) if takes_several => elements
            .iter()
            .map(|element| Ok(kept(text_of(file, entry, element)?)))
            .collect(),
        _ => Ok(vec![kept(single_text(file, entry)?)]),
    }
}

fn single_text(file: &Path, entry: &Entry) -> Result<String, SettingsError> {
    text_of(file, entry, &entry.value)
}

fn text_of(file: &Path, entry: &Entry, value: &toml::Value) -> Result<String, SettingsError> {
    let found = match value {
        toml::Value::String(text) => return Ok(text.clone()),
        toml::Value::Integer(number) => return Ok(number.to_string()),
        toml::Value::Float(number) => return Ok(number.to_string()),
        toml::Value::Boolean(flag) => return Ok(flag.to_string()),
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    };
    Err(SettingsError::WrongKind {
        path: file.to_owned(),
        key: entry.key(),
        found,
        expected: "one text, number or true/false",
    })
}

/// When flags or the environment give pairs (`--kafka-property k=v`), clap drops the defaults, the file's pairs with them.
/// These are the flags that bring back all pairs of the file that were not given anew, and keep those that were.
fn pairs_to_merge(root: &Command, matches: &ArgMatches, entries: &[Entry]) -> Vec<OsString> {
    let mut command = root;
    let mut matches = matches;
    let mut path = Vec::new();
    while let Some((name, inner)) = matches.subcommand() {
        let Some(sub) = command.find_subcommand(name) else {
            break;
        };
        (command, matches) = (sub, inner);
        path.push(name.to_owned());
    }
    let mut flags = Vec::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else {
            continue;
        };
        let id = argument.get_id().as_str();
        let from_file: Vec<(String, String)> = entries
            .iter()
            .filter_map(|entry| match meets(entry, &path, argument) {
                Some(Meeting::Pair(key)) => {
                    let value = single_text(Path::new(""), entry).ok()?;
                    Some((key, value))
                }
                _ => None,
            })
            .collect();
        let source = matches.value_source(id);
        if from_file.is_empty()
            || !matches!(
                source,
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        {
            continue;
        }
        let given: Vec<String> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .filter_map(|value| value.to_str().map(str::to_owned))
            .collect();
        let is_given = |key: &str| {
            given
                .iter()
                .any(|pair| pair.split_once('=').is_some_and(|(given, _)| given == key))
        };
        for (key, value) in &from_file {
            if !is_given(key) {
                flags.push(format!("--{long}={key}={value}").into());
            }
        }
        // A flag on the command line displaces the environment's pairs: say them again.
        if source == Some(ValueSource::EnvVariable) {
            flags.extend(given.iter().map(|pair| format!("--{long}={pair}").into()));
        }
    }
    flags
}

/// Says that a bad value came from the file, when it did.
fn name_file(error: clap::Error, file: &Path, entries: &[Entry]) -> SettingsError {
    use clap::error::{ContextKind, ContextValue};

    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        return error.into();
    };
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error.into();
    };
    let flag = argument
        .trim_start_matches("--")
        .split([' ', '='])
        .next()
        .unwrap_or_default();
    let origin = entries.iter().find(|entry| {
        let key = entry.path.join("-").replace('_', "-");
        let holds_value = match &entry.value {
            toml::Value::Array(elements) => elements
                .iter()
                .any(|element| text_of(file, entry, element).is_ok_and(|text| text == *value)),
            _ => single_text(file, entry).is_ok_and(|text| text == *value),
        };
        holds_value && (key == flag || key.ends_with(&format!("-{flag}")))
    });
    let Some(origin) = origin else {
        return error.into();
    };
    let reason = std::error::Error::source(&error)
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    clap::Error::raw(
        error.kind(),
        format!(
            "invalid value '{value}' for '{argument}'{reason} (from `{}` in {})\n",
            origin.key(),
            file.display()
        ),
    )
    .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "sample")]
    struct Sample {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        command: Service,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Service {
        Orders(Orders),
        Up(Up),
    }

    #[derive(Debug, clap::Args)]
    struct Orders {
        #[arg(long, default_value_t = 8085)]
        port: u16,
        #[arg(long, value_delimiter = ',', default_value = "localhost:9092")]
        kafka_brokers: Vec<String>,
        #[arg(long)]
        kafka_property: Vec<String>,
        #[arg(long)]
        mongodb_uri: String,
        #[arg(long)]
        quiet: bool,
        #[arg(long, default_value = "10s", value_parser = parse_duration)]
        request_timeout: Duration,
        // The only variables a test can rely on without setting any are those that cargo sets.
        #[arg(long, env = "CARGO_PKG_NAME", default_value = "none")]
        package: String,
    }

    #[derive(Debug, clap::Args)]
    struct Up {
        #[arg(long, default_value_t = 8085)]
        orders_port: u16,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read(text: &str, arguments: &[&str]) -> Result<Service, SettingsError> {
        let file = file(text);
        let mut all = vec!["sample", "--config", file.path().to_str().unwrap()];
        all.extend(arguments);
        try_parse_from::<Sample, _, _>(all).map(|sample| sample.command)
    }

    fn orders(text: &str, flags: &[&str]) -> Orders {
        let mut arguments = vec!["orders"];
        arguments.extend(flags);
        match read(text, &arguments) {
            Ok(Service::Orders(orders)) => orders,
            other => panic!("{other:?}"),
        }
    }

    const FULL: &str = r#"
        request-timeout = "3s"
        quiet = true
        [kafka]
        brokers = ["a:1", "b:2"]
        [kafka.properties]
        "security.protocol" = "SASL_SSL"
        retry.backoff.ms = 500
        [mongodb]
        uri = "mongodb://file"
        [orders]
        port = 9000
    "#;

    #[test]
    fn the_file_sets_what_flags_and_environment_leave_open() {
        let orders = orders(FULL, &[]);
        assert_eq!(orders.port, 9000);
        assert_eq!(orders.kafka_brokers, ["a:1", "b:2"]);
        assert_eq!(orders.mongodb_uri, "mongodb://file");
        assert_eq!(orders.request_timeout, Duration::from_secs(3));
        assert!(orders.quiet);
        let mut properties = orders.kafka_property;
        properties.sort();
        assert_eq!(
            properties,
            ["retry.backoff.ms=500", "security.protocol=SASL_SSL"]
        );
    }

    #[test]
    fn flags_override_the_file() {
        let flags = ["--port", "1", "--kafka-brokers", "c:3", "--mongodb-uri=x"];
        let orders = orders(FULL, &flags);
        assert_eq!(orders.port, 1);
        assert_eq!(orders.kafka_brokers, ["c:3"]);
        assert_eq!(orders.mongodb_uri, "x");
        assert_eq!(orders.request_timeout, Duration::from_secs(3));
    }

    #[test]
    fn the_environment_overrides_the_file_and_flags_override_both() {
        let text = "package = \"from-file\"\nmongodb_uri = \"x\"";
        assert_eq!(orders(text, &[]).package, env!("CARGO_PKG_NAME"));
        assert_eq!(orders(text, &["--package", "flag"]).package, "flag");
    }

    #[test]
    fn properties_are_merged_key_by_key() {
        let flags = [
            "--kafka-property",
            "security.protocol=PLAINTEXT",
            "--kafka-property",
            "client.id=x",
        ];
        let mut properties = orders(FULL, &flags).kafka_property;
        properties.sort();
        assert_eq!(
            properties,
            [
                "client.id=x",
                "retry.backoff.ms=500",
                "security.protocol=PLAINTEXT"
            ]
        );
    }

    #[test]
    fn a_subcommands_table_is_also_the_prefix_of_another_ones_flag() {
        match read("[orders]\nport = 9000", &["up"]) {
            Ok(Service::Up(up)) => assert_eq!(up.orders_port, 9000),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_may_be_named_behind_the_subcommand() {
        let file = file("mongodb-uri = \"x\"\nport = 5");
        let path = format!("--config={}", file.path().display());
        let sample: Sample = try_parse_from(["sample", "orders", &path]).unwrap();
        assert!(sample.config.config.is_some());
        assert!(matches!(
            sample.command,
            Service::Orders(Orders { port: 5, .. })
        ));
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_known_one() {
        let error = read("[kafka]\nbroker = [\"a:1\"]", &["orders"]).unwrap_err();
        let sentence = error.to_string();
        assert!(
            sentence.contains("unknown key `kafka.broker`; did you mean `kafka.brokers`?"),
            "{sentence}"
        );
        let error = read("zzz = 1", &["orders"]).unwrap_err();
        assert!(error.to_string().contains("unknown key `zzz`"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_file() {
        let text = "mongodb-uri = \"x\"\n[orders]\nport = 70000";
        let sentence = read(text, &["orders"]).unwrap_err().to_string();
        for part in ["70000", "--port", "65535", "`orders.port`"] {
            assert!(sentence.contains(part), "{part} is not in {sentence}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        let text = "mongodb-uri = [\"x\"]";
        let sentence = read(text, &["orders"]).unwrap_err().to_string();
        assert!(
            sentence.contains("has a list for `mongodb-uri`"),
            "{sentence}"
        );
    }

    #[test]
    fn a_file_that_is_missing_or_no_toml_is_named() {
        let missing = ["sample", "--config", "/nowhere/tandem.toml", "up"];
        let error = try_parse_from::<Sample, _, _>(missing).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere/tandem.toml"),
            "{error}"
        );
        let error = read("port = ", &["up"]).unwrap_err();
        assert!(error.to_string().contains("is not TOML"), "{error}");
    }

    #[test]
    fn without_a_file_a_required_flag_is_still_asked_for() {
        let error = try_parse_from::<Sample, _, _>(["sample", "orders"]).unwrap_err();
        assert!(error.to_string().contains("--mongodb-uri"), "{error}");
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
