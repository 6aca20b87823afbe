//! Layered configuration: flags override the environment, which overrides one TOML file. The same clap arguments
//! describe all three.
//!
//! The keys of the file are the names of the flags: `host = "0.0.0.0"` is `--host`. A table is a prefix: `[kafka]` with
//! `brokers = ["a:9092"]` is `--kafka-brokers a:9092`. A table named like a subcommand holds the flags of that
//! subcommand: `[orders]` with `port = 8085` is `tandem orders --port 8085` (and `tandem up --orders-port 8085`). A
//! table named with the plural of a repeatable flag holds its `KEY=VALUE` pairs: `[kafka.properties]` with
//! `"security.protocol" = "SASL_SSL"` is `--kafka-property security.protocol=SASL_SSL`. For pairs, file, environment
//! and flags are merged key by key.
//!
//! The values of the file become the defaults of the arguments. So clap itself applies the precedence, and names the
//! setting when it reports an invalid value.

mod defaults;
mod error;
mod key_matching;
mod pair_merging;
mod toml_file;
mod unknown_keys;
mod value_origin;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

pub use error::SettingsError;
pub use tandem_runtime::duration::parse_duration;

use defaults::with_defaults;
use pair_merging::pairs_to_merge;
use toml_file::read_file;
use unknown_keys::check_keys;
use value_origin::name_file;

/// The environment variable that names the file.
pub const CONFIG_ENV: &str = "TANDEM_CONFIG";

/// The flag that names the configuration file. Flatten it into the outermost parser.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFile {
    /// A TOML file with settings; flags and the environment override it.
    #[arg(long, env = CONFIG_ENV, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// Reads the process's configuration. An invalid setting ends the process with a message that says which setting and
/// why.
pub fn parse<T: Parser>() -> T {
    match try_parse_from(std::env::args_os()) {
        Ok(settings) => settings,
        Err(error) => error.exit(),
    }
}

/// Reads the configuration from these arguments (the first is the name of the program), the environment, and the file
/// that one of them names.
///
/// # Errors
///
/// [`SettingsError`] says which setting is invalid, and why.
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

/// The path of the file, from the flags or the environment. It must be known before clap reads the rest.
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
        // A test can rely only on the variables that cargo sets.
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
    fn a_file_that_is_no_toml_is_told_by_its_place_and_never_by_its_text() {
        for (text, place) in [
            (
                "quiet = true\nkafka-property = \"sasl.password=S3CRET",
                "line 2, column ",
            ),
            (
                "mongodb-uri = \"mongodb://user:S3CRET@host\" x",
                "line 1, column ",
            ),
            (
                "mongodb-uri = mongodb://user:S3CRET@host",
                "line 1, column ",
            ),
            (
                "[mongodb]\nuri = \"S3CRET\"\nuri = \"S3CRET\"",
                "is not TOML: ",
            ),
        ] {
            let error = read(text, &["up"]).unwrap_err();
            assert!(error.to_string().contains(place), "{error}");
            assert!(
                !format!("{error} {error:?}").contains("S3CRET"),
                "{error:?}"
            );
        }
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
