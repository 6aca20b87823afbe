//! The router's own spans: sent where the standard variables of OpenTelemetry say, as those of the services are.

use std::collections::HashMap;

use anyhow::Context;
use hive_router::config::HiveRouterConfig;
use hive_router::config::primitives::value_or_expression::ValueOrExpression;
use serde_json::{Value, json};
use tandem_trace_export::{Protocol, TraceSettings};

/// Puts the variables into the router's configuration; what stands there of tracing stays where they say nothing.
///
/// # Errors
/// When a variable does not fit.
pub(super) fn configure(
    router: &mut HiveRouterConfig,
    settings: Option<&TraceSettings>,
) -> anyhow::Result<()> {
    let Some(settings) = settings else {
        return Ok(());
    };
    let milliseconds = |time: std::time::Duration| format!("{}ms", time.as_millis());
    let headers: HashMap<&str, &str> = settings
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut exporter = json!({
        "kind": "otlp",
        "endpoint": settings.endpoint,
        "batch_processor": {
            "max_export_batch_size": settings.batches.size,
            "max_queue_size": settings.batches.queue,
            "max_export_timeout": milliseconds(settings.batches.time_limit),
            "scheduled_delay": milliseconds(settings.batches.delay),
        },
    });
    let (protocol, details) = match settings.protocol {
        Protocol::HttpProtobuf => ("http", ("http", json!({ "headers": headers }))),
        Protocol::Grpc => {
            let mut grpc = json!({ "metadata": headers });
            if let Some(certificates) = settings.collector_certificates() {
                grpc["tls"] = json!({ "ca": certificates });
            }
            ("grpc", ("grpc", grpc))
        }
    };
    exporter["protocol"] = Value::from(protocol);
    exporter[details.0] = details.1;
    router.telemetry.tracing = serde_json::from_value(json!({
        "exporters": [exporter],
        // What reaches the router's spans is decided on before (`sampling.rs`).
        "collect": { "sampling": 1.0, "parent_based_sampler": true },
    }))
    .context("the router does not take the settings of tracing")?;
    let name = settings.service_name.clone();
    let named = name.map(|name| ("service.name".to_owned(), name));
    for (key, value) in settings.resource.iter().cloned().chain(named) {
        router
            .telemetry
            .resource
            .attributes
            .insert(key, ValueOrExpression::Value(value));
    }
    Ok(())
}
