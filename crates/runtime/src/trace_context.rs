//! W3C trace context: the distributed trace that a request or an event belongs to.
//!
//! A request carries it as the header `traceparent`, and an event as a header of the same name. So one trace spans a
//! mutation, its event and the effects of the event.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

/// The name of the HTTP and Kafka header.
pub const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// One position in a distributed trace: `version-traceid-parentid-flags`, as the W3C recommendation defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// A `traceparent` that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// A span of a trace. Neither number may be zero, which means "invalid" in the recommendation.
    pub(crate) fn new(trace_id: u128, span_id: u64, flags: u8) -> Self {
        Self {
            trace_id,
            span_id,
            flags,
        }
    }

    pub(crate) fn span_number(&self) -> u64 {
        self.span_id
    }

    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    /// Starts a new, sampled trace.
    #[expect(clippy::disallowed_methods, reason = "ids of traces decide nothing")]
    pub fn generate() -> Self {
        Self {
            // Zero means "invalid" in the recommendation.
            trace_id: rand::random::<u128>().max(1),
            span_id: rand::random::<u64>().max(1),
            flags: 1,
        }
    }

    /// A new span in the same trace.
    #[expect(clippy::disallowed_methods, reason = "ids of traces decide nothing")]
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: rand::random::<u64>().max(1),
            ..*self
        }
    }

    /// The trace that the current task works for, if any (see [`TraceContext::scope`]).
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Runs a future with this context as its current one. Tasks spawned within do not inherit it.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Wraps a future that will run as another task, so that it keeps the current context.
    pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
        let current = Self::current();
        async move {
            match current {
                Some(context) => context.scope(future).await,
                None => future.await,
            }
        }
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's id: 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// The same place in the trace, marked as recorded or not.
    #[must_use]
    pub fn sampled(self, is_sampled: bool) -> Self {
        Self {
            flags: self.flags & !1 | u8::from(is_sampled),
            ..self
        }
    }

    /// The trace's id in OpenTelemetry's form: 16 bytes, big-endian.
    #[must_use]
    pub fn trace_bytes(&self) -> [u8; 16] {
        self.trace_id.to_be_bytes()
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('-');
        let version = hex(parts.next(), 2)?;
        let trace_id = hex(parts.next(), 32)?;
        let span_id = hex(parts.next(), 16)?;
        let flags = hex(parts.next(), 2)?;
        // A later version may append parts. Version 0 has exactly four parts, and version 0xff is forbidden.
        let extended = parts.next().is_some();
        if version == 0xff || (version == 0 && extended) || trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceparent);
        }
        Ok(Self {
            trace_id,
            span_id: u64::try_from(span_id).map_err(|_| InvalidTraceparent)?,
            flags: u8::try_from(flags).map_err(|_| InvalidTraceparent)?,
        })
    }
}

/// Parses exactly `digits` lower-case hexadecimal digits.
fn hex(part: Option<&str>, digits: usize) -> Result<u128, InvalidTraceparent> {
    let part = part.ok_or(InvalidTraceparent)?;
    let is_hex = part
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if part.len() != digits || !is_hex {
        return Err(InvalidTraceparent);
    }
    u128::from_str_radix(part, 16).map_err(|_| InvalidTraceparent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_unchanged() {
        let context: TraceContext = SAMPLE.parse().unwrap();
        assert_eq!(context.to_string(), SAMPLE);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for wrong in [
            "",
            "00",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(
                wrong.parse::<TraceContext>(),
                Err(InvalidTraceparent),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_child_stays_in_the_trace_under_a_new_span() {
        let parent = TraceContext::generate();
        let child = parent.child();
        assert_eq!(parent.trace_id(), child.trace_id());
        assert_ne!(parent.span_id(), child.span_id());
        assert_eq!(child.to_string().parse(), Ok(child));
    }

    #[tokio::test]
    async fn the_current_context_is_known_within_its_scope_only() {
        let context = TraceContext::generate();
        assert_eq!(TraceContext::current(), None);
        let seen = context.scope(async { TraceContext::current() }).await;
        assert_eq!(seen, Some(context));
        assert_eq!(TraceContext::current(), None);
        let carried = async {
            let task = TraceContext::carried(async { TraceContext::current() });
            tokio::spawn(task).await.unwrap()
        };
        let seen = context.scope(carried).await;
        assert_eq!(seen, Some(context));
    }
}
