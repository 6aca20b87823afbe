//! Metrics in the OpenMetrics format, which supports exemplars. Prometheus prefers it over the older text format.
//!
//! See <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.

use std::{fmt::Write, time::SystemTime};

use tandem_runtime::exemplars::{self, LATENCY_BUCKETS_SECONDS};

/// The media type of OpenMetrics.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether this `Accept` header allows OpenMetrics.
#[must_use]
pub fn is_accepted(accept: &str) -> bool {
    accept.contains("application/openmetrics-text")
}

/// Converts a text in the Prometheus format (0.0.4).
#[must_use]
pub fn of_text(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        if line.is_empty() {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# ") {
            comment(&mut written, rest);
        } else {
            written.push_str(line);
            if let Some(exemplar) = exemplar(line) {
                written.push_str(&exemplar);
            }
            written.push('\n');
        }
    }
    written.push_str("# EOF\n");
    written
}

/// Converts `TYPE name kind` or `HELP name text`. OpenMetrics names a counter without the `_total` of its samples.
fn comment(written: &mut String, rest: &str) {
    let mut words = rest.splitn(3, ' ');
    let (keyword, name, text) = (words.next(), words.next(), words.next());
    let (Some(keyword), Some(name), Some(text)) = (keyword, name, text) else {
        return;
    };
    let (name, text) = match name.strip_suffix("_total") {
        Some(counter) => (counter, text),
        // Samples of a counter must end with `_total`. A counter without it gets the type `unknown`.
        None if keyword == "TYPE" && text == "counter" => (name, "unknown"),
        None => (name, text),
    };
    // Writing to a string does not fail.
    let _ = writeln!(written, "# {keyword} {name} {text}");
}

/// The exemplar of a bucket's sample, if one is known.
fn exemplar(line: &str) -> Option<String> {
    let (name, rest) = line.split_once("_bucket{")?;
    let (labels, bound) = rest.split_once("le=\"")?;
    let (bound, _) = bound.split_once('"')?;
    let bucket = match bound.parse::<f64>() {
        Ok(bound) if bound.is_finite() => {
            LATENCY_BUCKETS_SECONDS.iter().position(|it| *it == bound)?
        }
        _ => LATENCY_BUCKETS_SECONDS.len(),
    };
    // The process's own label comes first. It is not part of the histogram's labels.
    let labels = labels.trim_end_matches(',');
    let labels = match labels.strip_prefix("application=\"") {
        Some(rest) => {
            let (_, rest) = rest.split_once('"')?;
            rest.trim_start_matches(',')
        }
        None => labels,
    };
    let series = match labels {
        "" => name.to_owned(),
        labels => format!("{name}{{{labels}}}"),
    };
    let found = exemplars::of_bucket(&series, bucket)?;
    let at = found.at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(format!(
        " # {{trace_id=\"{}\"}} {} {:.3}",
        found.trace_id,
        found.seconds,
        at.as_secs_f64()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_runtime::trace_context::TraceContext;

    use super::*;

    #[test]
    fn buckets_lead_to_a_trace_and_counters_have_their_family_s_name() {
        let trace = TraceContext::generate();
        let labels = [("uri", "/x"), ("status", "200")];
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
        exemplars::keep("open_metrics_seconds", &labels, 0.0041, &trace, now);
        let text = "\
# TYPE commands_retried_total counter
commands_retried_total{application=\"orders\"} 3

# TYPE open_metrics_seconds histogram
open_metrics_seconds_bucket{application=\"orders\",uri=\"/x\",status=\"200\",le=\"0.003\"} 0
open_metrics_seconds_bucket{application=\"orders\",uri=\"/x\",status=\"200\",le=\"0.005\"} 1
open_metrics_seconds_bucket{application=\"orders\",uri=\"/x\",status=\"200\",le=\"+Inf\"} 1
open_metrics_seconds_sum{application=\"orders\",uri=\"/x\",status=\"200\"} 0.0041
";
        let expected = format!(
            "\
# TYPE commands_retried counter
commands_retried_total{{application=\"orders\"}} 3
# TYPE open_metrics_seconds histogram
open_metrics_seconds_bucket{{application=\"orders\",uri=\"/x\",status=\"200\",le=\"0.003\"}} 0
open_metrics_seconds_bucket{{application=\"orders\",uri=\"/x\",status=\"200\",le=\"0.005\"}} 1 # {{trace_id=\"{}\"}} 0.0041 1.500
open_metrics_seconds_bucket{{application=\"orders\",uri=\"/x\",status=\"200\",le=\"+Inf\"}} 1
open_metrics_seconds_sum{{application=\"orders\",uri=\"/x\",status=\"200\"}} 0.0041
# EOF
",
            trace.trace_id()
        );
        assert_eq!(of_text(text), expected);
    }
}
