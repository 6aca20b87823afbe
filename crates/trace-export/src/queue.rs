//! The bound on spans that wait for export.
//!
//! The library's own queue drops what does not fit and does not say how much. So the bound is enforced before that
//! queue, and exported and lost spans are counted after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::losses::Losses;

/// Places in the queue; clones share them. A span has a place from its end until the exporter gets it.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Places {
    /// Makes this many places.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// Takes a place. Returns false if none is free.
    fn take(&self) -> bool {
        let is_free = self.taken.fetch_add(1, Relaxed) < self.most;
        if !is_free {
            self.free(1);
        }
        is_free
    }

    fn free(&self, places: usize) {
        self.taken.fetch_sub(places, Relaxed);
    }
}

/// Passes on as many spans as there are places, and counts the others as lost.
#[derive(Debug)]
pub(crate) struct Bounded<P> {
    inner: P,
    places: Places,
    losses: Arc<Losses>,
}

impl<P> Bounded<P> {
    /// Wraps this processor, which must have capacity for as many spans as there are places.
    pub(crate) fn new(inner: P, places: Places, losses: Arc<Losses>) -> Self {
        Self {
            inner,
            places,
            losses,
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // The inner processor ignores unsampled spans, so their places would never be freed.
        if !span.span_context.is_sampled() {
            return;
        }
        if self.places.take() {
            self.inner.on_end(span);
        } else {
            self.losses
                .count(1, &"more spans wait than OTEL_BSP_MAX_QUEUE_SIZE allows");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Exports spans, which frees their places, and counts as lost what the collector does not accept.
#[derive(Debug)]
pub(crate) struct Sending<E> {
    inner: E,
    places: Places,
    losses: Arc<Losses>,
}

impl<E> Sending<E> {
    /// Wraps this exporter.
    pub(crate) fn new(inner: E, places: Places, losses: Arc<Losses>) -> Self {
        Self {
            inner,
            places,
            losses,
        }
    }
}

impl<E: SpanExporter> SpanExporter for Sending<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.places.free(batch.len());
        let message = Message {
            spans: batch.len(),
            losses: &self.losses,
        };
        let outcome = self.inner.export(batch).await;
        message.ended(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A message in flight. Its spans are lost if it is dropped before the export has ended, as the library does if an
/// export takes too long.
struct Message<'a> {
    spans: usize,
    losses: &'a Losses,
}

impl Message<'_> {
    fn ended(mut self, outcome: &OTelSdkResult) {
        let spans = std::mem::take(&mut self.spans);
        match outcome {
            Ok(()) => Losses::show(),
            Err(error) => self.losses.count(spans, error),
        }
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if self.spans > 0 {
            self.losses
                .count(self.spans, &"the collector did not answer in time");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Mutex;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::{error::OTelSdkError, trace::SdkTracerProvider};

    use super::*;

    /// Collects the spans that were passed on.
    #[derive(Clone, Debug, Default)]
    struct HandedOn(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for HandedOn {
        fn on_start(&self, _: &mut Span, _: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[derive(Debug)]
    enum Collector {
        TakesThem,
        IsAway,
        NeverAnswers,
    }

    impl SpanExporter for Collector {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self {
                Self::TakesThem => Ok(()),
                Self::IsAway => Err(OTelSdkError::InternalFailure("it is away".to_owned())),
                Self::NeverAnswers => std::future::pending().await,
            }
        }
    }

    /// The value of the counter after this; `None` if it is not registered.
    fn lost(after: impl FnOnce()) -> Option<u64> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, after);
        let rendered = handle.render();
        let mut lines = rendered.lines();
        lines.find_map(|line| line.strip_prefix("trace_spans_lost_total ")?.parse().ok())
    }

    #[test]
    fn what_does_not_fit_is_lost_and_counted_until_there_is_room_again() {
        let lost = lost(|| {
            let (handed_on, places) = (HandedOn::default(), Places::new(2));
            let losses = Arc::new(Losses::on_the_way_to("http://there"));
            let provider = SdkTracerProvider::builder()
                .with_span_processor(Bounded::new(handed_on.clone(), places.clone(), losses))
                .build();
            let tracer = provider.tracer("test");
            for _ in 0..5 {
                drop(tracer.start("a span"));
            }
            assert_eq!(handed_on.0.lock().unwrap().len(), 2);
            places.free(2);
            drop(tracer.start("a span"));
            assert_eq!(handed_on.0.lock().unwrap().len(), 3);
        });
        assert_eq!(lost, Some(3));
    }

    #[test]
    fn what_a_collector_does_not_take_is_lost_and_its_places_are_free() {
        for (collector, expected) in [
            (Collector::TakesThem, 0),
            (Collector::IsAway, 2),
            (Collector::NeverAnswers, 2),
        ] {
            let said = format!("{collector:?}");
            let lost = lost(|| {
                let (handed_on, places) = (HandedOn::default(), Places::new(2));
                let losses = Arc::new(Losses::on_the_way_to("http://there"));
                let provider = SdkTracerProvider::builder()
                    .with_span_processor(Bounded::new(
                        handed_on.clone(),
                        places.clone(),
                        Arc::clone(&losses),
                    ))
                    .build();
                let tracer = provider.tracer("test");
                for _ in 0..2 {
                    drop(tracer.start("a span"));
                }
                let batch = std::mem::take(&mut *handed_on.0.lock().unwrap());
                let exporter = Sending::new(collector, places.clone(), losses);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let _ = runtime.block_on(async {
                    tokio::time::timeout(Duration::from_millis(10), exporter.export(batch)).await
                });
                assert!(places.take() && places.take() && !places.take());
            });
            assert_eq!(lost, Some(expected), "{said}");
        }
    }
}
