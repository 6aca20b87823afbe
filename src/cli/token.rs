//! `tandem token`: signs tokens with the development key that `up --auth` made.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tandem_authentication::{DevelopmentKey, Scope, Scopes, seconds_since_1970};
use tandem_service::settings::parse_duration;

use crate::terminal::tell;

/// The longest lifetime of a token. Even a development key must not sign tokens without an end.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Settings of `tandem token`.
#[derive(Args, Clone, Debug)]
pub(super) struct TokenSettings {
    /// Whom the token speaks for (claim `sub`); with the scope `self` the id of a customer.
    #[arg(long, value_name = "SUBJECT")]
    subject: String,

    /// What it allows, between spaces: customers:read customers:write customers:erase orders:read orders:write operations self.
    #[arg(long, value_name = "SCOPES", default_value = "")]
    scope: String,

    /// How long it is good, up to 30 days.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    expires_in: Duration,

    /// The data directory of the `up --auth` that takes the token.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    data_dir: PathBuf,
}

/// Prints a token.
///
/// # Errors
/// When there is no development key, or a scope is unknown.
pub(super) fn print(settings: &TokenSettings) -> anyhow::Result<()> {
    let scopes = settings
        .scope
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<Scope>, _>>()
        .context("--scope")?;
    anyhow::ensure!(
        settings.expires_in <= LONGEST && settings.expires_in.as_secs() > 0,
        "--expires-in: from 1s to 30 days"
    );
    let key = DevelopmentKey::open(&settings.data_dir.join(DevelopmentKey::DIRECTORY))?;
    let scopes: Scopes = scopes.into_iter().collect();
    let token = key.token(
        &settings.subject,
        scopes,
        seconds_since_1970(),
        settings.expires_in.as_secs(),
    )?;
    tell(&token);
    Ok(())
}
