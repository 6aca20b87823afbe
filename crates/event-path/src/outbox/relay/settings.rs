//! The relay's settings: how long an event waits for others, how often the store is swept for pending events, and when
//! a backlog counts as late.

use std::time::Duration;

use clap::Args;

/// How the relay looks after what was left behind.
#[derive(Args, Clone, Debug)]
pub struct RelaySettings {
    /// How long a change waits at most, such as `5ms`, for those before it to be acknowledged, so that it goes to Kafka together with
    /// what comes meanwhile. Longer costs everybody on the way less, and each change is known later.
    #[arg(long = "outbox-linger", env = "TANDEM_OUTBOX_LINGER", value_name = "DURATION", default_value = "5ms", value_parser = tandem_runtime::duration::parse_duration)]
    pub linger: Duration,

    /// Milliseconds between two looks for pending events that nobody offered (after a crash of this or another instance). While nothing is pending
    /// it is as long as an event takes to be left behind, 5 s at most.
    #[arg(long = "outbox-sweep-ms", env = "TANDEM_OUTBOX_SWEEP_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    pub sweep_ms: u64,

    /// Milliseconds after which a pending event is taken to be left behind by its instance.
    #[arg(long = "outbox-orphan-ms", env = "TANDEM_OUTBOX_ORPHAN_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub orphan_ms: u64,

    /// Seconds after which an event that is still pending makes the service degraded. It goes on serving: nobody waits for Kafka.
    #[arg(long = "outbox-late-seconds", env = "TANDEM_OUTBOX_LATE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub late_seconds: u64,

    /// Seconds after which an event that is still pending makes the service not ready, so that it gets no requests. Not set: never.
    #[arg(long = "outbox-unready-seconds", env = "TANDEM_OUTBOX_UNREADY_SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub unready_seconds: Option<u64>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            sweep_ms: 1_000,
            orphan_ms: 5_000,
            late_seconds: 30,
            unready_seconds: None,
        }
    }
}
