//! Measures the delivery of a change to subscribers: the time since the change was made, and, if its trace is recorded,
//! a span for each of the first few subscribers.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use tandem_event_path::spans;
use tandem_model::{message::Message, values::elapsed};
use tandem_runtime::{
    clock::Clock,
    exemplars,
    span::{Span, SpanKind},
    trace_context::TraceContext,
};

/// The number of deliveries of one change that are recorded as spans. One change may be for ten thousand subscribers.
const RECORDED: u32 = 8;

/// The histogram of the time until subscribers have a change.
const DELIVERED: &str = "change_delivered_seconds";

/// A change on its way to its subscribers.
pub(super) struct Delivery {
    subscription: &'static str,
    /// When the change was made, by the clock of the process that made it.
    made: DateTime<Utc>,
    /// When the change was read here.
    read: SystemTime,
    trace: Option<TraceContext>,
    recorded: AtomicU32,
    delivered: metrics::Histogram,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Delivery")
    }
}

impl Delivery {
    /// The delivery of the change in this message.
    pub(super) fn of(
        message: &Message,
        subscription: &'static str,
        made: DateTime<Utc>,
        clock: &Clock,
    ) -> Self {
        Self {
            read: clock.now(),
            subscription,
            made,
            trace: spans::trace_of(message),
            recorded: AtomicU32::new(0),
            delivered: metrics::histogram!(DELIVERED, "subscription" => subscription),
        }
    }

    /// Records the delivery to one more subscriber. The time is the difference of two clocks: the one of the maker and
    /// the one of this process.
    pub(super) fn goes_out(&self, clock: &Clock) {
        let now = clock.now();
        let seconds = elapsed(self.made, now).as_secs_f64();
        self.delivered.record(seconds);
        let Some(trace) = &self.trace else {
            return;
        };
        if self.recorded.fetch_add(1, Ordering::Relaxed) < RECORDED {
            let name = format!("deliver {}", self.subscription);
            let labels = [("subscription", self.subscription)];
            exemplars::keep(DELIVERED, &labels, seconds, trace, now);
            let _ends_here = Span::within_since(Some(trace), SpanKind::Internal, name, self.read)
                .with("graphql.operation.type", "subscription");
        }
    }
}
