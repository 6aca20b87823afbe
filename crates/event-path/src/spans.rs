//! The spans of an event's path: one when it is published, and one when a projection processes it. Both belong to the
//! trace of the request that asked for the change. Names and attributes follow OpenTelemetry's conventions for
//! messaging and Kafka.
//!
//! Work for several events at once belongs to the trace of the first one. The others link to it.

use tandem_model::{
    event::CloudEvent,
    message::{Message, Position},
};
use tandem_runtime::{
    span::{self, Span, SpanKind},
    trace_context::TraceContext,
};

/// The header in which an event carries its trace (CloudEvents, Distributed Tracing extension).
const TRACE_HEADER: &str = "ce_traceparent";

/// The trace that a message names, if it names one and this process records spans.
#[must_use]
pub fn trace_of(message: &Message) -> Option<TraceContext> {
    if !span::is_recording() {
        return None;
    }
    message.header(TRACE_HEADER)?.parse().ok()
}

/// Starts the span of publishing an event. It ends when the event is acknowledged.
pub(crate) fn publishing(topic: &'static str, key: &str, event: &CloudEvent) -> Span {
    if !span::is_recording() {
        return Span::none();
    }
    let trace = event.traceparent.as_deref();
    let trace = trace.and_then(|trace| trace.parse().ok());
    let mut span = Span::within(trace.as_ref(), SpanKind::Producer, format!("send {topic}"));
    if span.is_recorded() {
        span.set("messaging.system", "kafka");
        span.set("messaging.destination.name", topic);
        span.set("messaging.operation.type", "send");
        span.set("messaging.operation.name", "send");
        span.set("messaging.message.id", event.id.to_string());
        span.set("messaging.kafka.message.key", key.to_owned());
    }
    span
}

/// The spans of the recorded messages of a batch, while a projection processes it.
#[derive(Debug, Default)]
pub(crate) struct Processing(Vec<(Position, Span)>);

impl Processing {
    /// Starts the spans of a batch.
    pub(crate) fn begin(consumer: &'static str, group: &str, batch: &[Message]) -> Self {
        if !span::is_recording() {
            return Self::default();
        }
        let mut taken: Vec<(Position, Span)> = Vec::new();
        let mut first: Option<TraceContext> = None;
        for message in batch {
            let Some(trace) = trace_of(message) else {
                continue;
            };
            let name = format!("process {}", message.topic);
            let mut span = Span::within(Some(&trace), SpanKind::Consumer, name);
            if !span.is_recorded() {
                continue;
            }
            let Position { partition, offset } = message.position;
            span.set("messaging.system", "kafka");
            span.set("messaging.destination.name", message.topic.clone());
            span.set("messaging.operation.type", "process");
            span.set("messaging.operation.name", consumer);
            span.set("messaging.consumer.group.name", group.to_owned());
            span.set("messaging.destination.partition.id", partition.to_string());
            span.set("messaging.kafka.offset", offset);
            match &first {
                // The whole batch shares one write, which is recorded in the first trace.
                Some(first) => span.link(first),
                None => first = span.context(),
            }
            taken.push((message.position, span));
        }
        Self(taken)
    }

    /// The trace context for work that is done for the whole batch.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        self.0.first().and_then(|(_, span)| span.context())
    }

    /// The trace contexts of all recorded messages.
    pub(crate) fn traces(&self) -> Vec<(Position, TraceContext)> {
        let spans = self.0.iter();
        spans
            .filter_map(|(at, span)| Some((*at, span.context()?)))
            .collect()
    }

    /// Notes that a message was parked.
    pub(crate) fn set_aside(&mut self, position: Position, reason: &str) {
        self.say(position, |span| {
            span.set("tandem.outcome", "dead letter");
            span.fail(reason.to_owned());
        });
    }

    /// Notes that a message waits for its data key.
    pub(crate) fn waits(&mut self, position: Position) {
        self.say(position, |span| {
            span.set("tandem.outcome", "waits for its data key");
        });
    }

    fn say(&mut self, position: Position, say: impl FnOnce(&mut Span)) {
        let found = self.0.iter_mut().find(|(at, _)| *at == position);
        if let Some((_, span)) = found {
            say(span);
        }
    }
}
