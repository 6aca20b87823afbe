//! What is told of a change when it goes out to subscribers: how long it took since it was made, and, where its trace is recorded, a span for
//! the first few of them.

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

/// Subscribers whose deliveries of one change are recorded: a change may be for ten thousand.
const RECORDED: u32 = 8;

/// The histogram of how soon subscribers have changes.
const DELIVERED: &str = "change_delivered_seconds";

/// A change on its way to its subscribers.
pub(super) struct Delivery {
    subscription: &'static str,
    /// When it was made, by the clock of who made it.
    made: DateTime<Utc>,
    /// When it was read here.
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
    /// Of a change that this message told of.
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

    /// It goes out to one more subscriber now. Two clocks tell how long that took: the maker's and this one's.
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
