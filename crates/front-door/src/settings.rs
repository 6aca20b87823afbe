//! Limits and rules of the front door, as flags and variables.

mod allowed;

use std::num::NonZeroU32;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use allowed::{parse_host, parse_origin};

/// Limits of one WebSocket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketLimits {
    /// Operations that may be open at once.
    pub(crate) operations: usize,
    /// The largest accepted message, in bytes.
    pub(crate) message: usize,
    /// From the handshake to `connection_init`.
    pub(crate) init: Duration,
    /// Between two pings.
    pub(crate) ping: Duration,
}

/// A limit of 0 would refuse everything.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// What a port takes from the network. The defaults leave an honest client alone, also one with ten thousand subscriptions.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Front door")]
pub struct FrontDoorSettings {
    /// Names by which this port may be addressed besides its own address, such as `shop.example`; `*` for any. On loopback only
    /// names of loopback are taken without it, so that no web page reaches this port by a name of its own.
    #[arg(
        long,
        env = "TANDEM_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ',',
        value_parser = parse_host
    )]
    pub allowed_hosts: Vec<String>,

    /// Origins whose pages may call this port, such as `https://shop.example`; `*` for any. Pages of this port's own origin always may.
    #[arg(
        long,
        env = "TANDEM_ALLOWED_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = parse_origin
    )]
    pub allowed_origins: Vec<String>,

    /// Connections open at once. Unless it is set, 20,000, or as many as the limit of open files leaves.
    #[arg(long, env = "TANDEM_MAX_CONNECTIONS", value_name = "NUMBER", value_parser = at_least_one())]
    pub max_connections: Option<usize>,

    /// Connections open at once of one address.
    #[arg(
        long,
        env = "TANDEM_MAX_CONNECTIONS_PER_CLIENT",
        value_name = "NUMBER",
        default_value_t = 16_000,
        value_parser = at_least_one()
    )]
    pub max_connections_per_client: usize,

    /// Requests being answered at once.
    #[arg(
        long,
        env = "TANDEM_MAX_IN_FLIGHT",
        value_name = "NUMBER",
        default_value_t = 4_096,
        value_parser = at_least_one()
    )]
    pub max_in_flight: usize,

    /// Requests of one client being answered at once, those that it is still sending among them. Unless it is set, half of all of one address, and a
    /// quarter of one subject of tokens.
    #[arg(long, env = "TANDEM_MAX_IN_FLIGHT_PER_CLIENT", value_name = "NUMBER", value_parser = at_least_one())]
    pub max_in_flight_per_client: Option<usize>,

    /// Requests a second of one address, and of one subject of tokens; as many again may come in a burst. What is large
    /// counts as several: a request for each 4 KiB, for each 5 tokens of a document beyond 250 where it has not come
    /// before, and for each 50 fields beyond 2,000 that an answer may have.
    #[arg(
        long,
        env = "TANDEM_RATE_LIMIT",
        value_name = "PER_SECOND",
        default_value = "20000"
    )]
    pub rate_limit: NonZeroU32,

    /// Subscriptions and queries open at once on one WebSocket.
    #[arg(
        long,
        env = "TANDEM_MAX_SUBSCRIPTIONS_PER_CONNECTION",
        value_name = "NUMBER",
        default_value_t = 1_000,
        value_parser = at_least_one()
    )]
    pub max_subscriptions_per_connection: usize,

    /// Subscriptions open at once of one client. Unless it is set, 1,000 of one subject of tokens, and without tokens 16,000 of one address, which
    /// may be that of a proxy before many clients.
    #[arg(
        long,
        env = "TANDEM_MAX_SUBSCRIPTIONS_PER_CLIENT",
        value_name = "NUMBER",
        value_parser = at_least_one()
    )]
    pub max_subscriptions_per_client: Option<usize>,

    /// The largest message that is taken on a WebSocket, in bytes.
    #[arg(
        long,
        env = "TANDEM_MAX_MESSAGE",
        value_name = "BYTES",
        default_value_t = 1_048_576,
        value_parser = at_least_one()
    )]
    pub max_message: usize,

    /// How long a client may take from opening a WebSocket to `connection_init`, in seconds.
    #[arg(
        long,
        env = "TANDEM_INIT_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub init_timeout_seconds: u64,

    /// How often a WebSocket is pinged, in seconds; one that has been silent for three times as long counts as lost.
    #[arg(
        long,
        env = "TANDEM_PING_SECONDS",
        value_name = "SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub ping_seconds: u64,

    /// The most that an operation may cost, in fields of its answer: a connection counts as often as `first` says.
    #[arg(
        long,
        env = "TANDEM_MAX_COST",
        value_name = "FIELDS",
        default_value_t = 50_000,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_cost: u64,

    /// The largest answer to an operation, in bytes.
    #[arg(
        long,
        env = "TANDEM_MAX_ANSWER",
        value_name = "BYTES",
        default_value_t = 16_777_216,
        value_parser = at_least_one()
    )]
    pub max_answer: usize,

    /// How long a client may take for the head of a request, and to begin one on a new connection, in seconds.
    #[arg(
        long,
        env = "TANDEM_HEADER_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub header_timeout_seconds: u64,

    /// How long a client may take for the body of a request, in seconds.
    #[arg(
        long,
        env = "TANDEM_BODY_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub body_timeout_seconds: u64,

    /// How long a connection may stay open between two requests, in seconds.
    #[arg(
        long,
        env = "TANDEM_IDLE_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 75,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub idle_timeout_seconds: u64,
}

/// Connections that may be open at once if no number is configured and there are enough file descriptors.
pub(crate) const DEFAULT_CONNECTIONS: usize = 20_000;

impl Default for FrontDoorSettings {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_connections: None,
            max_connections_per_client: 16_000,
            max_in_flight: 4_096,
            max_in_flight_per_client: None,
            rate_limit: NonZeroU32::new(20_000).unwrap_or(NonZeroU32::MIN),
            max_subscriptions_per_connection: 1_000,
            max_subscriptions_per_client: None,
            max_message: 1_048_576,
            init_timeout_seconds: 10,
            ping_seconds: 15,
            max_cost: 50_000,
            max_answer: 16 * 1024 * 1024,
            header_timeout_seconds: 10,
            body_timeout_seconds: 10,
            idle_timeout_seconds: 75,
        }
    }
}

impl FrontDoorSettings {
    /// The limits of one WebSocket.
    pub(crate) fn sockets(&self) -> SocketLimits {
        SocketLimits {
            operations: self.max_subscriptions_per_connection,
            message: self.max_message,
            init: Duration::from_secs(self.init_timeout_seconds),
            ping: Duration::from_secs(self.ping_seconds),
        }
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_seconds)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_seconds)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }
}
