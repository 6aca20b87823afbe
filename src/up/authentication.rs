//! Who may call the services that `up` starts. By default that is everybody on this machine. With an issuer configured,
//! callers need its token. With `--auth`, they need a token signed by a development key in the data directory.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use tandem_authentication::{AuthenticationSettings, DevelopmentKey, Scope, seconds_since_1970};

use super::UpSettings;

/// Lifetime of the printed token in seconds: a working day.
const LIFETIME: u64 = 8 * 3600;
/// The variables that tell the children which address to listen on.
const HOSTS: [&str; 2] = ["TANDEM_HOST", "TANDEM_GATEWAY_HOST"];

/// The authentication settings of all children.
#[derive(Clone, Debug)]
pub(super) struct Authentication {
    settings: AuthenticationSettings,
    /// Signed with the development key. Grants every scope except `self`.
    token: Option<String>,
}

impl Authentication {
    /// From the settings, or with `--auth` from the key in this data directory. Makes that key if there is none.
    ///
    /// # Errors
    ///
    /// When a setting does not fit the addresses that will be listened on, or the key cannot be written.
    pub(super) fn prepare(settings: &UpSettings, data_directory: &Path) -> anyhow::Result<Self> {
        let prepared = if settings.auth {
            Self::of_development(data_directory).context("--auth")?
        } else {
            Self {
                settings: settings.authentication.clone(),
                token: None,
            }
        };
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let elsewhere = HOSTS
            .iter()
            .filter_map(|name| std::env::var(name).ok()?.parse::<IpAddr>().ok())
            .find(|host| !host.is_loopback());
        prepared.settings.check(elsewhere.unwrap_or(loopback))?;
        Ok(prepared)
    }

    fn of_development(data_directory: &Path) -> anyhow::Result<Self> {
        let directory = std::path::absolute(data_directory.join(DevelopmentKey::DIRECTORY))?;
        let key = DevelopmentKey::open_or_make(&directory)?;
        let scopes = Scope::ALL
            .into_iter()
            .filter(|scope| *scope != Scope::Own)
            .collect();
        let token = key.token("developer", scopes, seconds_since_1970(), LIFETIME)?;
        Ok(Self {
            settings: AuthenticationSettings {
                jwks: vec![key.public_keys().display().to_string()],
                issuers: vec![DevelopmentKey::ISSUER.to_owned()],
                audiences: vec![DevelopmentKey::AUDIENCE.to_owned()],
                // The signer and the verifiers run on one machine and share its clock.
                clock_skew_seconds: 0,
                insecure_no_auth: false,
            },
            token: Some(token),
        })
    }

    /// Whether callers need a token.
    pub(super) fn is_on(&self) -> bool {
        self.settings.is_on()
    }

    /// The settings as environment variables for every child.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        self.settings.environment()
    }

    /// The line that tells the user who may call, and a token to try things out with.
    pub(super) fn told(&self) -> (String, Option<&str>) {
        let told = match &self.token {
            Some(token) => format!(
                "bearers of a token; `tandem token` makes more, with fewer rights. For eight hours, with all rights:\n\n  {token}"
            ),
            None if self.is_on() => {
                format!("bearers of a token of {}", self.settings.issuers.join(", "))
            }
            None => {
                "everybody who reaches these ports may do everything; `up --auth` asks for tokens"
                    .to_owned()
            }
        };
        (told, self.token.as_deref())
    }
}
