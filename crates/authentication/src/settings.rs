//! The settings of authentication, and what is refused before anything listens.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::source::{Issuer, SourceError};
use crate::verifier::Verifier;

/// The largest permitted difference between the clocks of issuer and service, in seconds.
const MOST_CLOCK_SKEW: u64 = 300;

/// Settings of authentication. Without `--auth-jwks` it is off.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationSettings {
    /// File or https address of an issuer's public keys (JSON Web Key Set). Repeatable, one for each --auth-issuer.
    #[arg(
        long = "auth-jwks",
        env = "TANDEM_AUTH_JWKS",
        value_name = "URL|FILE",
        value_delimiter = ','
    )]
    pub jwks: Vec<String>,

    /// The issuer (claim `iss`) whose tokens are taken. Repeatable, in the order of --auth-jwks. Customers are of the first: subjects of
    /// every further one are known as `ISSUER|SUBJECT`, so `self` is nobody there.
    #[arg(
        long = "auth-issuer",
        env = "TANDEM_AUTH_ISSUER",
        value_name = "ISSUER",
        value_delimiter = ','
    )]
    pub issuers: Vec<String>,

    /// The audience (claim `aud`) that tokens must be meant for. Repeatable: one of them suffices.
    #[arg(
        long = "auth-audience",
        env = "TANDEM_AUTH_AUDIENCE",
        value_name = "AUDIENCE",
        value_delimiter = ','
    )]
    pub audiences: Vec<String>,

    /// By how much the clocks of issuer and service may differ, in seconds, up to 300: so long a token is taken before and after its time.
    #[arg(
        long = "auth-clock-skew-seconds",
        env = "TANDEM_AUTH_CLOCK_SKEW_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(0..=MOST_CLOCK_SKEW)
    )]
    pub clock_skew_seconds: u64,

    /// Listen on other addresses than loopback without authentication: whoever reaches the port may do everything.
    #[arg(long, env = "TANDEM_INSECURE_NO_AUTH")]
    pub insecure_no_auth: bool,
}

/// Why a process must not start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Other machines could reach the port.
    #[error(
        "{host} can be reached from other machines, and without authentication whoever reaches it may read and change everything: \
         set --auth-jwks, --auth-issuer and --auth-audience, or listen on 127.0.0.1, or say --insecure-no-auth"
    )]
    Exposed {
        /// The address.
        host: IpAddr,
    },
    /// The numbers of key sets and issuers differ.
    #[error(
        "--auth-jwks is given {keys} times and --auth-issuer {issuers} times; each issuer needs its keys, in the same order"
    )]
    Unpaired {
        /// The number of key sets.
        keys: usize,
        /// The number of issuers.
        issuers: usize,
    },
    /// Some of the keys would never be used.
    #[error(
        "--auth-issuer names {issuer} more than once, and of its keys only those of the first --auth-jwks would be used: name each issuer once"
    )]
    Duplicate {
        /// The issuer.
        issuer: String,
    },
    /// Tokens for any audience would be accepted.
    #[error(
        "--auth-audience is missing: without it a token that was made for another service would be taken here"
    )]
    NoAudience,
    /// Two settings that exclude each other.
    #[error("--insecure-no-auth and --auth-jwks exclude each other: leave one out")]
    Contradiction,
    /// The keys cannot be read.
    #[error("--auth-jwks: {0}")]
    Keys(#[from] SourceError),
}

impl AuthenticationSettings {
    /// Whether tokens are verified.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.jwks.is_empty() || !self.issuers.is_empty() || !self.audiences.is_empty()
    }

    /// The same settings as environment variables for another process.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = Vec::new();
        if self.is_on() {
            environment.extend([
                ("TANDEM_AUTH_JWKS", self.jwks.join(",")),
                ("TANDEM_AUTH_ISSUER", self.issuers.join(",")),
                ("TANDEM_AUTH_AUDIENCE", self.audiences.join(",")),
                (
                    "TANDEM_AUTH_CLOCK_SKEW_SECONDS",
                    self.clock_skew_seconds.to_string(),
                ),
            ]);
        }
        if self.insecure_no_auth {
            environment.push(("TANDEM_INSECURE_NO_AUTH", "true".to_owned()));
        }
        environment
    }

    /// Checks the settings for the address that the process will listen on.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] says which setting does not fit, and what would be right.
    pub fn check(&self, host: IpAddr) -> Result<(), SettingsError> {
        if self.is_on() {
            if self.insecure_no_auth {
                return Err(SettingsError::Contradiction);
            }
            return self.trusted().map(drop);
        }
        if host.to_canonical().is_loopback() || self.insecure_no_auth {
            Ok(())
        } else {
            Err(SettingsError::Exposed { host })
        }
    }

    /// Checks the settings as [`Self::check`] does, and starts the verifier. [`None`] if authentication is off.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] says which setting does not fit, and what would be right. It is also returned when keys in a
    /// file cannot be read.
    pub async fn verifier(
        &self,
        host: IpAddr,
        stop: CancellationToken,
    ) -> Result<Option<Verifier>, SettingsError> {
        self.check(host)?;
        if !self.is_on() {
            return Ok(None);
        }
        let issuers = self.trusted()?;
        let skew = Duration::from_secs(self.clock_skew_seconds);
        Ok(Some(
            Verifier::start(issuers, self.audiences.clone(), skew, stop).await?,
        ))
    }

    fn trusted(&self) -> Result<Vec<Issuer>, SettingsError> {
        if self.jwks.is_empty() || self.jwks.len() != self.issuers.len() {
            return Err(SettingsError::Unpaired {
                keys: self.jwks.len(),
                issuers: self.issuers.len(),
            });
        }
        for (place, issuer) in self.issuers.iter().enumerate() {
            if self
                .issuers
                .iter()
                .take(place)
                .any(|before| before == issuer)
            {
                return Err(SettingsError::Duplicate {
                    issuer: issuer.clone(),
                });
            }
        }
        if self.audiences.is_empty() {
            return Err(SettingsError::NoAudience);
        }
        self.jwks
            .iter()
            .zip(&self.issuers)
            .map(|(keys, name)| {
                Ok(Issuer {
                    name: name.clone(),
                    keys: keys.parse()?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ANYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    async fn refused(settings: AuthenticationSettings, host: IpAddr) -> SettingsError {
        settings
            .verifier(host, CancellationToken::new())
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn without_authentication_only_loopback_is_listened_on_unless_told() {
        let off = AuthenticationSettings::default();
        assert!(
            off.verifier(LOOPBACK, CancellationToken::new())
                .await
                .unwrap()
                .is_none()
        );
        let refusal = refused(off.clone(), ANYWHERE).await.to_string();
        assert!(refusal.contains("--insecure-no-auth"), "{refusal}");
        let told = AuthenticationSettings {
            insecure_no_auth: true,
            ..off
        };
        assert!(
            told.verifier(ANYWHERE, CancellationToken::new())
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn half_of_a_setting_is_refused() {
        let keys = AuthenticationSettings {
            jwks: vec!["keys.json".into()],
            ..Default::default()
        };
        assert!(matches!(
            refused(keys.clone(), LOOPBACK).await,
            SettingsError::Unpaired {
                keys: 1,
                issuers: 0
            }
        ));
        let no_audience = AuthenticationSettings {
            issuers: vec!["us".into()],
            ..keys
        };
        assert!(matches!(
            refused(no_audience.clone(), LOOPBACK).await,
            SettingsError::NoAudience
        ));
        let both = AuthenticationSettings {
            insecure_no_auth: true,
            ..no_audience.clone()
        };
        assert!(matches!(
            refused(both, LOOPBACK).await,
            SettingsError::Contradiction
        ));
        let gone = AuthenticationSettings {
            audiences: vec!["tandem".into()],
            ..no_audience
        };
        assert!(matches!(
            refused(gone, LOOPBACK).await,
            SettingsError::Keys(_)
        ));
        let twice = AuthenticationSettings {
            jwks: vec!["old.json".into(), "new.json".into()],
            issuers: vec!["us".into(), "us".into()],
            audiences: vec!["tandem".into()],
            ..Default::default()
        };
        let refusal = refused(twice, LOOPBACK).await;
        assert!(matches!(&refusal, SettingsError::Duplicate { issuer } if issuer == "us"));
        assert!(refusal.to_string().contains("--auth-issuer"), "{refusal}");
        let only_audience = AuthenticationSettings {
            audiences: vec!["tandem".into()],
            ..Default::default()
        };
        assert!(only_audience.is_on());
    }
}
