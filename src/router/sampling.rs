//! Decides whether a request's trace is recorded, before the router makes its spans (about eleven for a query). The
//! router's own sampler makes all spans and then discards most of them, so recording one trace in a hundred cost nearly
//! as much as recording all.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tandem_runtime::trace_context::{TRACEPARENT, TraceContext};
use tandem_trace_export::Sampling;
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    dispatcher::get_default,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

/// Decides which requests' traces are recorded, for all threads of the gateway.
#[derive(Clone)]
pub(super) struct Sampler {
    sampling: Sampling,
    logs: Dispatch,
}

impl Sampler {
    /// Decides by these settings. Requests that are not recorded still log to the current subscriber of this thread.
    pub(super) fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            logs: get_default(|all| Dispatch::new(LogsAlone(all.clone()))),
        }
    }

    /// Decides on a request and writes the decision into its `traceparent`, which router and services follow. For a
    /// request that is not recorded, returns the subscriber to execute it with.
    pub(super) fn decide(&self, headers: &mut HeaderMap) -> Option<Dispatch> {
        let caller = trace_of(headers);
        let trace = caller.unwrap_or_else(TraceContext::generate);
        let is_recorded = self.sampling.records(caller.as_ref(), &trace);
        match caller {
            // Without the header, the router begins a trace of its own.
            None if is_recorded => {
                headers.remove(TRACEPARENT);
            }
            _ => {
                let told = trace.sampled(is_recorded).to_string();
                if let Ok(told) = HeaderValue::try_from(told) {
                    headers.insert(HeaderName::from_static(TRACEPARENT), told);
                }
            }
        }
        (!is_recorded).then(|| self.logs.clone())
    }
}

/// The trace that the request's headers name, if any.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// Passes on events but no spans to a subscriber that would send its spans to a collector.
struct LogsAlone(Dispatch);

impl Subscriber for LogsAlone {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match metadata.is_event() {
            true => self.0.register_callsite(metadata),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.0.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The level of the subscriber behind it, which does not change.
        Some(LevelFilter::current())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Not reached, because no span is ever enabled.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    fn decided(ratio: f64, follows_parent: bool, given: Option<&str>) -> (bool, Option<String>) {
        let sampler = Sampler::new(Sampling {
            ratio,
            follows_parent,
        });
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(TRACEPARENT, given.parse().unwrap());
        }
        let is_recorded = sampler.decide(&mut headers).is_none();
        let told = headers.get(TRACEPARENT);
        (
            is_recorded,
            told.map(|told| told.to_str().unwrap().to_owned()),
        )
    }

    #[test]
    fn a_caller_that_records_its_trace_is_followed_where_the_settings_say_so() {
        let (yes, no) = (format!("{CALLER}1"), format!("{CALLER}0"));
        assert_eq!(decided(0.0, true, Some(&yes)), (true, Some(yes.clone())));
        assert_eq!(decided(1.0, true, Some(&no)), (false, Some(no.clone())));
        assert_eq!(decided(0.0, false, Some(&yes)), (false, Some(no.clone())));
        assert_eq!(decided(1.0, false, Some(&no)), (true, Some(yes)));
    }

    #[test]
    fn services_hear_of_a_trace_that_is_not_recorded_and_the_router_begins_the_others() {
        assert_eq!(decided(1.0, true, None), (true, None));
        assert_eq!(decided(1.0, true, Some("nonsense")), (true, None));
        let (is_recorded, told) = decided(0.0, true, None);
        let told: TraceContext = told.unwrap().parse().unwrap();
        assert!(!is_recorded && !told.is_sampled());
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, told.to_string().parse().unwrap());
        assert_eq!(trace_of(&headers), Some(told));
    }

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<&'static str>>>);

    impl Subscriber for Heard {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.lock().unwrap().push(span.metadata().name());
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.lock().unwrap().push("event");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn what_is_not_recorded_makes_no_spans_and_is_logged_all_the_same() {
        let heard = Heard::default();
        let work = || {
            let span = tracing::info_span!("a span");
            let _entered = span.enter();
            tracing::info!("something happened");
        };
        tracing::subscriber::with_default(heard.clone(), || {
            work();
            let logs = Sampler::new(Sampling {
                ratio: 0.0,
                follows_parent: true,
            })
            .logs;
            tracing::dispatcher::with_default(&logs, work);
        });
        assert_eq!(*heard.0.lock().unwrap(), ["a span", "event", "event"]);
    }
}
