//! Exemplars: for each bucket of a latency histogram the trace of one request that was counted there. They lead from a
//! figure to an example of it. Only recorded traces are used.
//!
//! See <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>, "Exemplars".

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::trace_context::TraceContext;

/// Upper bounds of the latency histograms, in seconds. They are finest where the promised latencies are (milliseconds).
pub const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5,
    1.0, 2.0, 5.0, 10.0,
];

/// Most series with exemplars. Labels are bounded, so this limit is not reached in practice.
const SERIES: usize = 512;

static KEPT: Mutex<Option<HashMap<String, Buckets>>> = Mutex::new(None);

/// The newest exemplar of each bucket. The bucket without an upper bound is last.
type Buckets = Vec<Option<Exemplar>>;

/// One request that was counted in a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its trace id: 32 hexadecimal digits.
    pub trace_id: String,
    /// The recorded value, in seconds.
    pub seconds: f64,
    /// When it was recorded.
    pub at: SystemTime,
}

/// Keeps the trace of a value that was recorded in a histogram, and replaces the earlier one of the same bucket.
/// `labels` are the histogram's labels in the same order.
pub fn keep(
    metric: &'static str,
    labels: &[(&'static str, &str)],
    seconds: f64,
    trace: &TraceContext,
    at: SystemTime,
) {
    if !trace.is_sampled() {
        return;
    }
    let series = series(metric, labels);
    let mut kept = kept();
    let all = kept.get_or_insert_default();
    if all.len() >= SERIES && !all.contains_key(&series) {
        return;
    }
    let buckets = all
        .entry(series)
        .or_insert_with(|| vec![None; LATENCY_BUCKETS_SECONDS.len() + 1]);
    let place = LATENCY_BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
    if let Some(bucket) = buckets.get_mut(place) {
        *bucket = Some(Exemplar {
            trace_id: trace.trace_id(),
            seconds,
            at,
        });
    }
}

/// The exemplar of a bucket. `series` is the histogram's name and labels as they are exposed, without the global labels
/// and without `le`.
#[must_use]
pub fn of_bucket(series: &str, bucket: usize) -> Option<Exemplar> {
    let kept = kept();
    kept.as_ref()?.get(series)?.get(bucket)?.clone()
}

fn kept() -> MutexGuard<'static, Option<HashMap<String, Buckets>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a series in the exposed form.
fn series(metric: &str, labels: &[(&'static str, &str)]) -> String {
    let mut series = metric.to_owned();
    for (number, (name, value)) in labels.iter().enumerate() {
        let begin = if number == 0 { '{' } else { ',' };
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = write!(series, "{begin}{name}=\"{value}\"");
    }
    if !labels.is_empty() {
        series.push('}');
    }
    series
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_of_each_bucket_is_kept_and_only_of_recorded_traces() {
        let (first, second) = (TraceContext::generate(), TraceContext::generate());
        let labels = [("uri", "/a \"b\""), ("status", "200")];
        let now = SystemTime::now();
        for (trace, seconds) in [(&first, 0.004), (&second, 0.0041), (&first, 20.0)] {
            keep("exemplar_seconds", &labels, seconds, trace, now);
        }
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let unsampled = unsampled.parse().unwrap();
        keep("exemplar_seconds", &labels, 0.9, &unsampled, now);
        let series = "exemplar_seconds{uri=\"/a \\\"b\\\"\",status=\"200\"}";
        assert_eq!(of_bucket(series, 4).unwrap().trace_id, second.trace_id());
        assert_eq!(of_bucket(series, 18).unwrap().trace_id, first.trace_id());
        assert_eq!(of_bucket(series, 14), None);
        assert_eq!(of_bucket("another", 4), None);
    }
}
