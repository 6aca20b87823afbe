//! Traces: the whole path of one request, from the client through the gateway, the services and the topics to the
//! subscriber, as a collector receives it.

mod collector;
mod exporting;

use std::{collections::BTreeSet, time::Duration};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tandem_backends::{KafkaOptions, Servers};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::support::{
    Client, Signal, Tandem, TandemBuilder, Transport,
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    poll, signal,
    site::Site,
};

use collector::{Collector, Span, Spoken};

const GATEWAY: &str = "tandem-gateway";
const ACCOUNTS: &str = "tandem-accounts";
const ORDERS: &str = "tandem-orders";

/// The caller's own span.
const CLICK: &str = "b7ad6b7169203331";

fn sending_to(collector: &Collector, mut builder: TandemBuilder) -> TandemBuilder {
    for (name, value) in collector.variables() {
        builder = builder.env(name, value);
    }
    builder
}

fn asked(client: &Client, url: &str, trace: &str, query: &str, variables: Value) -> Value {
    let answer = client.traced(url, &format!("00-{trace}-{CLICK}-01"), query, variables);
    assert!(answer["errors"].is_null(), "{answer:#}");
    answer["data"].clone()
}

/// Whether `ancestor` is above `span` in its trace.
#[track_caller]
fn is_within(collector: &Collector, span: &Span, ancestor: &str) {
    let mut at = span.clone();
    while at.parent != ancestor {
        let parent = at.parent.clone();
        // An enclosing span ends, and is sent, after those within it.
        at = poll(
            &format!("{parent}, above {} and within {ancestor}", span.name),
            || {
                let mut spans = collector.trace(&span.trace).into_iter();
                spans.find(|it| it.id == parent)
            },
        );
    }
}

/// One creation and one order through the gateway, with a subscriber.
fn everything_is_one_trace(tandem: &Tandem, collector: &Collector, store: &str) {
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    let creation = "0af7651916cd43dd8448eb211c80319c";
    asked(
        &client,
        &gateway,
        creation,
        CREATE,
        json!({"input": customer_input("traced", "Lovelace")}),
    );
    tandem.replicated(&client, "traced", 1);

    let served = collector.span(creation, ACCOUNTS, "POST /graphql");
    assert_eq!(served.kind, SpanKind::Server);
    assert_eq!(served.attributes["http.response.status_code"], "200");
    assert_eq!(served.attributes["http.route"], "/graphql");
    let sent = collector.span(creation, ACCOUNTS, "send accounts.customer.change");
    assert_eq!(sent.kind, SpanKind::Producer);
    assert_eq!(sent.attributes["messaging.system"], "kafka");
    assert_eq!(sent.attributes["messaging.kafka.message.key"], "traced");
    is_within(collector, &sent, &served.id);
    let taken = collector.span(creation, ORDERS, "process accounts.customer.change");
    assert_eq!(taken.kind, SpanKind::Consumer);
    assert!(taken.begun >= served.begun && taken.ended >= taken.begun);
    is_within(collector, &taken, &served.id);
    let written = poll("the replica's write", || {
        let spans = collector.trace(creation).into_iter();
        let mut written =
            spans.filter(|it| it.service == ORDERS && it.attributes.contains_key("db.system.name"));
        written.find(|it| it.parent == taken.id)
    });
    assert_eq!(written.attributes["db.system.name"], store);
    // The router's own spans are in the same trace, between the caller's span and the service.
    is_within(collector, &served, CLICK);
    let routers = poll("the gateway's spans", || {
        let spans = collector.trace(creation).into_iter();
        let routers: Vec<Span> = spans.filter(|span| span.service == GATEWAY).collect();
        routers
            .iter()
            .any(|span| span.parent == CLICK)
            .then_some(routers)
    });
    assert!(
        routers.iter().any(|span| span.id == served.parent),
        "{routers:#?} {served:#?}"
    );

    let subscription = client.subscribe(
        Transport::WebSocket,
        &gateway,
        "subscription { orderUpdated { order { id } } }",
        Value::Null,
    );
    // A subscriber gets only orders that are placed after it has subscribed.
    let order = "4bf92f3577b34da6a3ce929d0e0e4736";
    let place = || json!({"input": order_input("traced")});
    poll("the subscriber", || {
        asked(
            &client,
            &gateway,
            "1bf92f3577b34da6a3ce929d0e0e4736",
            PLACE,
            place(),
        );
        subscription.next_within(Duration::from_secs(2))
    });
    asked(&client, &gateway, order, PLACE, place());
    let placed = collector.span(order, ORDERS, "POST /graphql");
    let delivered = collector.span(order, ORDERS, "deliver orderUpdated");
    assert_eq!(
        delivered.attributes["graphql.operation.type"],
        "subscription"
    );
    is_within(collector, &delivered, &placed.id);
    is_within(collector, &delivered, CLICK);
    let operation = poll("the operation", || {
        let spans = collector.trace(order).into_iter();
        let mut of_orders = spans.filter(|span| span.service == ORDERS);
        of_orders.find(|span| {
            span.attributes
                .get("graphql.operation.type")
                .map(String::as_str)
                == Some("mutation")
        })
    });
    is_within(collector, &operation, &placed.id);

    // Each process reports its name, its version and its instance.
    let spans = collector.trace(order).into_iter();
    let instances: BTreeSet<(String, String)> = spans
        .map(|span| {
            let said = |name: &str| span.resource[name].clone();
            assert_eq!(said("service.version"), env!("CARGO_PKG_VERSION"));
            let instance = said("service.instance.id");
            assert!(Uuid::parse_str(&instance).is_ok(), "{instance}");
            (instance, said("service.name"))
        })
        .collect();
    let names: Vec<&str> = instances.iter().map(|(_, name)| name.as_str()).collect();
    for name in [GATEWAY, ORDERS] {
        let replicas = names.iter().filter(|it| **it == name).count();
        assert_eq!(replicas, 1, "{instances:?}");
    }

    // An exemplar of a metric leads to a trace that it counts.
    for (base, metric) in [
        (tandem.accounts_url(""), "http_server_requests_seconds"),
        (tandem.accounts_url(""), "change_published_seconds"),
        (tandem.orders_url(""), "change_visible_seconds"),
        (tandem.orders_url(""), "change_delivered_seconds"),
        (tandem.gateway_url(""), "graphql_operations_seconds"),
    ] {
        let exposed = client.accepted(
            &format!("{base}/actuator/prometheus"),
            "application/openmetrics-text; version=1.0.0",
        );
        assert!(exposed.ends_with("# EOF\n"), "{exposed}");
        let mut exemplars = exposed.lines().filter(|line| line.starts_with(metric));
        let exemplar = exemplars.find_map(|line| line.split_once(" # {trace_id=\""));
        let (_, trace) = exemplar.unwrap_or_else(|| panic!("{metric} has none: {exposed}"));
        assert!(!collector.trace(&trace[..32]).is_empty(), "{trace}");
    }
    what_is_refused_is_told_without_what_was_sent(&client, &gateway, collector);
    assert!(collector.tenants().contains("blue team"));
    for text in collector.texts() {
        for personal in ["Lovelace", "Ada", "example.org"] {
            assert!(!text.contains(personal), "{text}");
        }
    }
}

/// A service's error message quotes unknown names, which may contain anything.
fn what_is_refused_is_told_without_what_was_sent(
    client: &Client,
    gateway: &str,
    collector: &Collector,
) {
    let trace = "2af7651916cd43dd8448eb211c80319c";
    let unknown = json!({"id": "Lovelace", "input": {"name": {"firstName": "A", "lastName": "B"}}});
    let parent = format!("00-{trace}-{CLICK}-01");
    let answer = client.traced(gateway, &parent, UPDATE, unknown);
    let said = answer["errors"][0]["message"].as_str().unwrap();
    assert!(said.contains("Lovelace"), "it quotes nothing: {answer:#}");
    // An enclosing span ends, and is sent, after those within it.
    collector.span(trace, GATEWAY, "http.server");
    collector.span(trace, ACCOUNTS, "POST /graphql");
    let operation = collector.span(trace, GATEWAY, "graphql.operation");
    let codes = operation.attributes.get("hive.graphql.error.codes");
    assert_eq!(
        codes.map(String::as_str),
        Some("NOT_FOUND"),
        "{operation:#?}"
    );
}

#[test]
fn one_trace_goes_from_the_click_to_the_subscriber_over_http() {
    let collector = Collector::start(Spoken::Http);
    let tandem = sending_to(&collector, Tandem::builder()).start();
    everything_is_one_trace(&tandem, &collector, "redb");
}

#[test]
fn one_trace_goes_from_the_click_to_the_subscriber_over_grpc_on_real_servers() {
    tandem_backends::require!(mongod, kafka);
    let collector = Collector::start(Spoken::Grpc);
    let site = Site::on_real_servers_with(|builder| sending_to(&collector, builder));
    everything_is_one_trace(&site.tandem, &collector, "mongodb");
}

/// The event of a command while the log is stopped. Its relay is killed before it can publish.
fn an_event_keeps_its_trace(
    tandem: &mut Tandem,
    collector: &Collector,
    stop_log: impl FnOnce(),
    resume_log: impl FnOnce(),
) {
    let client = Client::new();
    let trace = "9af7651916cd43dd8448eb211c80319c";
    stop_log();
    asked(
        &client,
        &tandem.accounts_url("/graphql"),
        trace,
        CREATE,
        json!({"input": customer_input("killed", "Hopper")}),
    );
    // The spans above the event are sent before the process dies.
    let served = collector.span(trace, ACCOUNTS, "POST /graphql");
    let accounts = tandem.child("accounts").unwrap();
    signal(accounts, Signal::KILL);
    resume_log();
    tandem.wait_until_ready();
    tandem.replicated(&client, "killed", 1);
    let sent = collector.span(trace, ACCOUNTS, "send accounts.customer.change");
    assert!(!sent.failed);
    assert_ne!(
        sent.resource["service.instance.id"], served.resource["service.instance.id"],
        "whoever published it has come after the kill"
    );
    is_within(collector, &sent, &served.id);
    let taken = collector.span(trace, ORDERS, "process accounts.customer.change");
    is_within(collector, &taken, &served.id);
}

#[test]
fn an_event_keeps_its_trace_over_a_kill_of_the_relay() {
    let collector = Collector::start(Spoken::Http);
    let mut tandem = sending_to(&collector, Tandem::builder()).start();
    let broker = tandem.child("broker").unwrap();
    an_event_keeps_its_trace(
        &mut tandem,
        &collector,
        || signal(broker, Signal::STOP),
        || signal(broker, Signal::CONT),
    );
}

#[test]
fn an_event_keeps_its_trace_over_a_kill_of_the_relay_on_real_servers() {
    tandem_backends::require!(mongod, kafka);
    let collector = Collector::start(Spoken::Grpc);
    let runtime = Runtime::new().unwrap();
    let servers = runtime
        .block_on(Servers::start(KafkaOptions::default()))
        .unwrap();
    let mut tandem = sending_to(&collector, Tandem::builder().servers(&servers)).start();
    an_event_keeps_its_trace(
        &mut tandem,
        &collector,
        || servers.kafka.pause(0).unwrap(),
        || servers.kafka.resume(0).unwrap(),
    );
}

/// Creates customers concurrently, each within its own trace.
fn create_at_once(url: &str, count: usize) -> BTreeSet<String> {
    let traces = (0..count).map(|_| Uuid::now_v7().simple().to_string());
    let traces: BTreeSet<String> = traces.collect();
    std::thread::scope(|scope| {
        for trace in &traces {
            scope.spawn(move || {
                let input = json!({"input": customer_input(&Uuid::now_v7().to_string(), "Lamarr")});
                asked(&Client::new(), url, trace, CREATE, input);
            });
        }
    });
    traces
}

/// Each link of a span leads to a span with this name, in the same process, within one of these traces.
#[track_caller]
fn leads_to(collector: &Collector, span: &Span, traces: &BTreeSet<String>, name: &str) {
    assert!(traces.contains(&span.trace), "{span:#?}");
    for link in &span.links {
        assert!(traces.contains(&link.trace), "{span:#?}");
        assert_ne!(link.span, span.id, "{span:#?}");
        let target = poll(&format!("what {} links to: {link:?}", span.name), || {
            let mut spans = collector.trace(&link.trace).into_iter();
            spans.find(|it| it.id == link.span)
        });
        assert_eq!(target.name, name, "{target:#?}");
        assert_eq!(target.resource, span.resource, "{target:#?}");
    }
}

/// A shared write for several commands is within the span of the first one, and links to the spans of the others.
fn what_is_shared_is_linked(tandem: &Tandem, collector: &Collector) {
    let url = tandem.accounts_url("/graphql");
    let mut traces = BTreeSet::new();
    let shared = poll("a shared write", || {
        traces.extend(create_at_once(&url, 16));
        collector.linked(|span| span.service == ACCOUNTS && span.name.starts_with("shared "))
    });
    let name = shared.name.strip_prefix("shared ").unwrap();
    leads_to(collector, &shared, &traces, name);
    let waits = poll("what the first of them waits for", || {
        let mut spans = collector.trace(&shared.trace).into_iter();
        spans.find(|it| it.id == shared.parent)
    });
    assert_eq!(waits.name, name);
}

#[test]
fn what_is_written_together_is_linked() {
    let collector = Collector::start(Spoken::Http);
    let tandem = sending_to(&collector, Tandem::builder()).start();
    what_is_shared_is_linked(&tandem, &collector);
}

#[test]
fn what_is_written_together_is_linked_on_real_servers() {
    tandem_backends::require!(mongod, kafka);
    let collector = Collector::start(Spoken::Grpc);
    let site = Site::on_real_servers_with(|builder| sending_to(&collector, builder));
    what_is_shared_is_linked(&site.tandem, &collector);
}

#[test]
fn messages_that_a_projection_takes_together_link_to_the_first_of_them() {
    const PROCESS: &str = "process accounts.customer.change";
    let collector = Collector::start(Spoken::Http);
    let tandem = sending_to(&collector, Tandem::builder()).start();
    let url = tandem.accounts_url("/graphql");
    let orders = tandem.child("orders").unwrap();
    let mut traces = BTreeSet::new();
    let taken = poll("a batch of several messages", || {
        signal(orders, Signal::STOP);
        let created = create_at_once(&url, 12);
        for trace in &created {
            collector.span(trace, ACCOUNTS, "send accounts.customer.change");
        }
        signal(orders, Signal::CONT);
        for trace in &created {
            collector.span(trace, ORDERS, PROCESS);
        }
        traces.extend(created);
        collector.linked(|span| span.service == ORDERS && span.name == PROCESS)
    });
    assert_eq!(taken.links.len(), 1, "{taken:#?}");
    leads_to(&collector, &taken, &traces, PROCESS);
}

#[test]
fn the_gateway_logs_a_request_by_its_trace_whether_it_brings_one_or_not() {
    let collector = Collector::start(Spoken::Http);
    let own = "6af7651916cd43dd8448eb211c80319c";
    for (sampler, is_recorded) in [("always_on", true), ("always_off", false)] {
        let tandem = sending_to(&collector, Tandem::builder())
            .env("OTEL_TRACES_SAMPLER", sampler)
            .start();
        let client = Client::new();
        let gateway = tandem.gateway_url("/graphql");
        let log = tandem.data_dir().join("logs/router.log");
        let logged = |count: usize| -> Vec<String> {
            poll("the gateway logs what was answered with errors", || {
                let log = std::fs::read_to_string(&log).ok()?;
                let lines = log.lines().filter(|line| line.contains("NOT_FOUND"));
                let traces: Vec<String> = lines.map(trace_id).collect();
                (traces.len() == count).then_some(traces)
            })
        };
        let nobody =
            || json!({"id": "nobody", "input": {"name": {"firstName": "Ada", "lastName": "King"}}});
        let answer = client.traced(&gateway, &format!("00-{own}-{CLICK}-01"), UPDATE, nobody());
        assert!(!answer["errors"].is_null(), "{answer:#}");
        assert_eq!(logged(1), [own]);
        let answer = client.graphql(&gateway, UPDATE, nobody());
        assert!(!answer["errors"].is_null(), "{answer:#}");
        let begun = logged(2).remove(1);
        assert!(begun.len() == 32 && begun != own, "{begun}");
        if is_recorded {
            collector.span(&begun, GATEWAY, "http.server");
            collector.span(&begun, ACCOUNTS, "POST /graphql");
        }
    }
}

/// The trace id in a line of the log. Empty if there is none.
fn trace_id(line: &str) -> String {
    let (_, rest) = line.split_once("trace_id").unwrap_or_default();
    let rest = rest.trim_start_matches(|any: char| !any.is_ascii_hexdigit());
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}
