//! The settings of a service's HTTP port.

use std::net::IpAddr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use tandem_authentication::AuthenticationSettings;
use tandem_front_door::{FrontDoorSettings, TlsSettings};
use tandem_runtime::duration::parse_time_limit;

use super::legacy::Sunset;

/// How requests are served. The port belongs to each service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// The address to listen on; 0.0.0.0 for all.
    #[arg(
        long,
        env = "TANDEM_HOST",
        value_name = "ADDRESS",
        default_value = "127.0.0.1"
    )]
    pub host: IpAddr,

    /// How long an answer may take, such as `10s` or `500ms`; then the request is answered with 503.
    #[arg(long, env = "TANDEM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = parse_time_limit)]
    pub request_timeout: Duration,

    /// The largest body that is taken, in bytes.
    #[arg(
        long,
        env = "TANDEM_MAX_BODY",
        value_name = "BYTES",
        default_value = "1048576",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub max_body: usize,

    /// How long open requests may go on once shutdown is requested.
    #[arg(long, env = "TANDEM_DRAIN_LIMIT", value_name = "DURATION", default_value = "2s", value_parser = crate::settings::parse_duration)]
    pub drain_limit: Duration,

    /// When the REST routes of older clients will be gone: a day such as 2027-06-30, or a moment. Their answers say it (`Sunset`).
    #[arg(long, env = "TANDEM_REST_SUNSET", value_name = "DATE", value_parser = Sunset::parse)]
    pub rest_sunset: Option<Sunset>,

    /// What is taken from the network.
    #[command(flatten)]
    pub front_door: FrontDoorSettings,

    /// Whose tokens are taken.
    #[command(flatten)]
    pub authentication: AuthenticationSettings,

    /// The port's certificate.
    #[command(flatten)]
    pub tls: TlsSettings,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            request_timeout: Duration::from_secs(10),
            max_body: 1024 * 1024,
            drain_limit: Duration::from_secs(2),
            rest_sunset: None,
            front_door: FrontDoorSettings::default(),
            authentication: AuthenticationSettings::default(),
            tls: TlsSettings::default(),
        }
    }
}
