//! The export of spans: compressed where configured, and never so that a caller waits.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    ACCOUNTS, GATEWAY, asked,
    collector::{Collector, Spoken},
    sending_to,
};
use crate::support::{
    Client, Tandem,
    graph::{CREATE, customer_input},
    poll, tandem_command,
};

#[test]
fn messages_are_compressed_where_the_variable_says_so() {
    for (spoken, variable) in [
        (Spoken::Grpc, "OTEL_EXPORTER_OTLP_COMPRESSION"),
        (Spoken::Http, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"),
    ] {
        let collector = Collector::start(spoken);
        let tandem = sending_to(&collector, Tandem::builder())
            .env(variable, "gzip")
            .start();
        let trace = "5af7651916cd43dd8448eb211c80319c";
        asked(
            &Client::new(),
            &tandem.gateway_url("/graphql"),
            trace,
            CREATE,
            json!({"input": customer_input("small", "Huffman")}),
        );
        collector.span(trace, ACCOUNTS, "POST /graphql");
        poll("the gateway's spans", || {
            let mut spans = collector.trace(trace).into_iter();
            spans.find(|span| span.service == GATEWAY)
        });
        let gzip = BTreeSet::from(["gzip".to_owned()]);
        assert_eq!(collector.compressions(), gzip, "{spoken:?}");
    }
}

/// How many lost spans a service reports.
fn lost(client: &Client, base: &str) -> Option<u64> {
    let shown = client.get(&format!("{base}/actuator/prometheus")).body;
    let mut lines = shown.lines();
    let line = lines.find(|line| line.starts_with("trace_spans_lost_total"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_collector_that_is_away_or_never_answers_changes_nothing_for_callers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = tandem_backends::free_port().unwrap();
    for port in [silent.local_addr().unwrap().port(), away] {
        let tandem = Tandem::builder()
            .env(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{port}"),
            )
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "16")
            .start();
        let client = Client::new();
        for number in 0..50 {
            let input = json!({"input": customer_input(&format!("unseen-{number}"), "Noether")});
            client.data(&tandem.gateway_url("/graphql"), CREATE, input);
        }
        tandem.replicated(&client, "unseen-49", 1);
        // Accounts and orders count spans that do not fit the queue or are not accepted. The gateway's queue is the
        // router's own.
        for base in [tandem.accounts_url(""), tandem.orders_url("")] {
            poll(&format!("{base} counts what is lost"), || {
                lost(&client, &base).filter(|lost| *lost > 0)
            });
        }
        tandem.process_says_in_log("spans do not reach the collector");
        for service in ["accounts", "orders"] {
            let log = tandem.data_dir().join(format!("logs/{service}.log"));
            let log = std::fs::read_to_string(log).unwrap();
            // The library would log a line for each message.
            assert!(!log.contains("BatchSpanProcessor"), "{log}");
        }
    }
}

#[test]
fn a_variable_that_cannot_be_read_is_named_before_anything_starts() {
    let output = tandem_command()
        .args(["accounts", "--port", "0"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{said}");
    assert!(said.contains("expected"), "{said}");
}
