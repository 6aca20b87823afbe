//! Spans: the parts of a distributed trace that this process records (OpenTelemetry).
//!
//! Code that works for a trace passes on its [`TraceContext`], across tasks, stores and topics, and begins a [`Span`]
//! for what takes time. Spans are recorded only if an exporter is installed and has called [`record`]. Otherwise each
//! call only reads a flag.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue, Value,
    global::{self, BoxedSpan},
    trace::{
        Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer,
    },
};

pub use opentelemetry::trace::SpanKind;

use crate::trace_context::TraceContext;

/// The name of the instrumentation scope of all spans.
const SCOPE: &str = "tandem";
/// Most links of one span: OpenTelemetry's default limit (Trace SDK, "Span Limits").
pub const MOST_LINKS: usize = 128;

static RECORDS: AtomicBool = AtomicBool::new(false);

/// Turns recording on. An exporter must be installed as OpenTelemetry's global tracer provider.
pub fn record() {
    RECORDS.store(true, Ordering::Relaxed);
}

/// Whether spans are recorded in this process.
#[must_use]
pub fn is_recording() -> bool {
    RECORDS.load(Ordering::Relaxed)
}

/// An operation that takes time within a trace. The span ends when it is dropped. If nothing is recorded, it is empty
/// and costs nothing.
#[derive(Debug, Default)]
pub struct Span(Option<Box<BoxedSpan>>);

impl Span {
    /// A span that is not recorded.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Begins the span of a network request: within the caller's trace, or as the root of a new one. This process's
    /// sampler decides whether it is recorded.
    #[must_use]
    pub fn of_request(name: impl Into<Cow<'static, str>>, caller: Option<&TraceContext>) -> Self {
        if !is_recording() {
            return Self::none();
        }
        Self::new(name.into(), SpanKind::Server, caller, None)
    }

    /// Begins a child of `parent`. It is recorded if the parent is.
    #[must_use]
    pub fn within(
        parent: Option<&TraceContext>,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        match parent {
            Some(parent) if is_recording() && parent.is_sampled() => {
                Self::new(name.into(), kind, Some(parent), None)
            }
            _ => Self::none(),
        }
    }

    /// Like [`Self::within`], for an operation that began at this time.
    #[must_use]
    pub fn within_since(
        parent: Option<&TraceContext>,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        begun: SystemTime,
    ) -> Self {
        match parent {
            Some(parent) if is_recording() && parent.is_sampled() => {
                Self::new(name.into(), kind, Some(parent), Some(begun))
            }
            _ => Self::none(),
        }
    }

    /// Begins a child of the current task's span (see [`TraceContext::scope`]).
    #[must_use]
    pub fn within_current(kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Self {
        if !is_recording() {
            return Self::none();
        }
        Self::within(TraceContext::current().as_ref(), kind, name)
    }

    /// Begins a span for work that is done for several traces at once. It belongs to the first trace, and has a link to
    /// each other one.
    #[must_use]
    pub fn for_all(
        traces: impl IntoIterator<Item = TraceContext>,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        if !is_recording() {
            return Self::none();
        }
        let mut traces = traces.into_iter().filter(TraceContext::is_sampled);
        let first = traces.next();
        let mut span = Self::within(first.as_ref(), kind, name);
        for other in traces.take(MOST_LINKS) {
            span.link(&other);
        }
        span
    }

    fn new(
        name: Cow<'static, str>,
        kind: SpanKind,
        parent: Option<&TraceContext>,
        begun: Option<SystemTime>,
    ) -> Self {
        let parent = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(span_context(parent))
        });
        let tracer = global::tracer(SCOPE);
        let mut builder = tracer.span_builder(name).with_kind(kind);
        if let Some(begun) = begun {
            builder = builder.with_start_time(begun);
        }
        Self(Some(Box::new(tracer.build_with_context(builder, &parent))))
    }

    /// Whether the span is recorded. If not, expensive attributes need not be computed.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// The span's place in the trace, for work within it. `None` if nothing is recorded at all. A span that the sampler
    /// left out also has a context, and that context says so.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        if !context.is_valid() {
            return None;
        }
        Some(TraceContext::new(
            u128::from_be_bytes(context.trace_id().to_bytes()),
            u64::from_be_bytes(context.span_id().to_bytes()),
            context.trace_flags().to_u8(),
        ))
    }

    /// Adds an attribute. Use the names of OpenTelemetry's semantic conventions where they have one. Never add personal
    /// data.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Adds an attribute, as a builder.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Adds a link to a related span in another trace, or elsewhere in the same one.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(span) = &mut self.0 {
            span.add_link(span_context(other), Vec::new());
        }
    }

    /// Changes the span's name.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0 {
            span.update_name(name);
        }
    }

    /// Marks the span as failed. The reason is a text of ours that contains no personal data.
    pub fn fail(&mut self, reason: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(reason));
        }
    }
}

/// Converts a [`TraceContext`] to OpenTelemetry's type.
fn span_context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_bytes()),
        SpanId::from_bytes(context.span_number().to_be_bytes()),
        TraceFlags::new(context.flags()),
        true,
        TraceState::NONE,
    )
}
