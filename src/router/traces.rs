//! Export of the router's own spans, configured like the services' by the standard variables of OpenTelemetry.

use std::collections::HashMap;

use anyhow::Context;
use hive_router::config::HiveRouterConfig;
use hive_router::config::primitives::value_or_expression::ValueOrExpression;
use serde_json::{Value, json};
use tandem_trace_export::{Protocol, TraceSettings, own_attributes};

/// Puts the variables into the router's configuration. Its own tracing settings stay where no variable is set.
///
/// # Errors
/// When a variable is not valid.
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
    // Compression is not set here: the library of both reads that variable itself.
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
                let client = settings.client.as_ref();
                grpc["tls"] = json!({
                    "ca": certificates,
                    "cert": client.map(|client| &client.certificate),
                    "key": client.map(|client| &client.key),
                });
            }
            ("grpc", ("grpc", grpc))
        }
    };
    exporter["protocol"] = Value::from(protocol);
    exporter[details.0] = details.1;
    router.telemetry.tracing = serde_json::from_value(json!({
        "exporters": [exporter],
        // `sampling.rs` has decided before which requests reach the router's spans. Events are left out: they are the
        // services' error messages, which may quote what a caller has sent. The codes of the errors are attributes.
        "collect": { "sampling": 1.0, "parent_based_sampler": true, "max_events_per_span": 0 },
    }))
    .context("the router does not take the settings of tracing")?;
    let attributes = &mut router.telemetry.resource.attributes;
    for (key, value) in own_attributes("gateway") {
        // A value in the router's configuration takes precedence over this one, and the variables over both.
        attributes
            .entry(key)
            .or_insert(ValueOrExpression::Value(value));
    }
    for (key, value) in settings.given_attributes() {
        attributes.insert(key, ValueOrExpression::Value(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use hive_router::config::parse_yaml_config;

    use super::*;

    /// An attribute of the gateway under these variables.
    fn said(variables: &[(&str, &str)], key: &str) -> Option<String> {
        let settings = TraceSettings::from_variables(|name| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://there:4318".to_owned()),
            _ => variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned()),
        });
        let built_in = include_str!("../../router-config/hive-router.yaml");
        let mut router = parse_yaml_config(built_in.to_owned()).unwrap();
        configure(&mut router, settings.unwrap().as_ref()).unwrap();
        match router.telemetry.resource.attributes.get(key)? {
            ValueOrExpression::Value(value) => Some(value.clone()),
            other => panic!("{other:?} is no value"),
        }
    }

    #[test]
    fn the_gateway_says_its_name_its_version_and_which_replica_it_is() {
        let name = |variables: &[(&str, &str)]| said(variables, "service.name");
        let among = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=among");
        let own = ("OTEL_SERVICE_NAME", "own");
        assert_eq!(name(&[]).as_deref(), Some("tandem-gateway"));
        assert_eq!(name(&[among]).as_deref(), Some("among"));
        assert_eq!(name(&[among, own]).as_deref(), Some("own"));
        let version = said(&[], "service.version");
        assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        let instance = || said(&[], "service.instance.id").unwrap();
        assert_ne!(instance(), instance());
    }

    #[test]
    fn what_is_said_of_errors_is_in_no_span() {
        let settings = TraceSettings::from_variables(|name| {
            (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://there:4318".to_owned())
        });
        let built_in = include_str!("../../router-config/hive-router.yaml");
        let mut router = parse_yaml_config(built_in.to_owned()).unwrap();
        configure(&mut router, settings.unwrap().as_ref()).unwrap();
        assert_eq!(router.telemetry.tracing.collect.max_events_per_span, 0);
    }

    #[test]
    fn a_collector_is_shown_the_certificate_that_the_variables_name() {
        let settings = TraceSettings::from_variables(|name| {
            let value = match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => "https://there:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL" => "grpc",
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" => "/client.pem",
                "OTEL_EXPORTER_OTLP_CLIENT_KEY" => "/client.key",
                _ => return None,
            };
            Some(value.to_owned())
        });
        let built_in = include_str!("../../router-config/hive-router.yaml");
        let mut router = parse_yaml_config(built_in.to_owned()).unwrap();
        configure(&mut router, settings.unwrap().as_ref()).unwrap();
        let written = serde_json::to_value(&router.telemetry.tracing).unwrap();
        let tls = &written["exporters"][0]["grpc"]["tls"];
        assert_eq!(tls["cert"], "/client.pem");
        assert_eq!(tls["key"], "/client.key");
    }
}
