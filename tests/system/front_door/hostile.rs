//! Small requests that were expensive to answer.

use std::io::Write;

use super::{sockets::Socket, *};
use crate::support::{is_alive, poll};

/// An operation with a response of more than 2,000 bytes on every port.
const LARGE: &str = "{__schema{types{name fields{name type{name}}}}}";

fn nested(levels: usize, open: &str, close: &str) -> Vec<u8> {
    format!(
        r#"{{"query":"{{__typename}}","variables":{{"a":{}1{}}}}}"#,
        open.repeat(levels),
        close.repeat(levels)
    )
    .into_bytes()
}

/// Fragments that each use the next one this many times.
fn chain(length: usize, times: usize) -> String {
    let mut document = "{...f0}".to_owned();
    for at in 0..length {
        let uses = format!("...f{} ", at + 1).repeat(times);
        document.push_str(&format!(" fragment f{at} on Query {{ {uses} }}"));
    }
    format!("{document} fragment f{length} on Query {{ __typename }}")
}

#[test]
fn what_nests_multiplies_or_does_not_parse_is_refused_at_once_on_every_port() {
    let tandem = Tandem::start();
    let json_type = [("content-type", "application/json")];
    for (name, port) in ports(&tandem) {
        for (levels, open, close) in [
            (50, "[", "]"),
            (11_000, "[", "]"),
            (400, "{\"b\":", "}"),
            (200_000, "[", ""),
            (30_000, "[{\"b\":", "}]"),
        ] {
            let body = nested(levels, open, close);
            let answer = send(port, "POST", "/graphql", &json_type, &body);
            assert_eq!(answer.status, 400, "{name} {levels} {open}: {answer:?}");
            assert_eq!(answer.code(), "BAD_USER_INPUT");
        }
        for parameter in ["variables", "extensions"] {
            let value = format!("%7B%22a%22:{}{}%7D", "[".repeat(500), "]".repeat(500));
            let target = format!("/graphql?query=%7B__typename%7D&{parameter}={value}");
            assert_eq!(get(port, &target, &[]).status, 400, "{name} {parameter}");
        }
        for (document, code) in [
            (
                format!("{}{}", "{a".repeat(45), "}".repeat(45)),
                "BAD_USER_INPUT",
            ),
            ("{a".repeat(40_000), "BAD_USER_INPUT"),
            (
                format!("{{a(b:{}1{})}}", "[".repeat(500), "]".repeat(500)),
                "BAD_USER_INPUT",
            ),
            (chain(22, 2), "TOO_EXPENSIVE"),
            (chain(64, 2), "TOO_EXPENSIVE"),
            (chain(9, 7), "TOO_EXPENSIVE"),
            (
                "{...a} fragment a on Query{...b} fragment b on Query{...a}".to_owned(),
                "BAD_USER_INPUT",
            ),
            (
                "{ ".to_owned() + &"__typename ".repeat(20_000) + "}",
                "BAD_USER_INPUT",
            ),
            (
                r#"{a{b{"a string token that is long"}}}"#.to_owned(),
                "BAD_USER_INPUT",
            ),
        ] {
            let shown: String = document.chars().take(40).collect();
            let answer = graphql(port, &document, &json!({}));
            assert_eq!(answer.code(), code, "{name} {shown}: {answer:?}");
            assert!(answer.json().get("data").is_none(), "{name} {shown}");
        }
    }
    for service in ["router", "accounts", "orders"] {
        assert!(is_alive(tandem.child(service).unwrap()), "{service}");
    }
    all_answer(&tandem);
}

#[test]
fn what_is_behind_the_door_is_not_reached_by_another_writing_of_its_path() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/manifest.json");
    let tandem = Tandem::builder()
        .env("TANDEM_TRUSTED_DOCUMENTS", manifest)
        .start();
    let json_type = ("content-type", "application/json");
    let body = br#"{"query":"{__schema{queryType{name}}}"}"#;
    let query = "query=%7B__schema%7BqueryType%7Bname%7D%7D%7D";
    for (name, port) in ports(&tandem) {
        for path in [
            "/graphql/",
            "/graphql//",
            "/graphql/ws",
            "/graphql/ws/",
            "/graphql/x",
            "/graphql/ui/x",
            "/%67raphql",
            "/graphq%6C/",
            "/g%2572aphql",
        ] {
            let answer = send(port, "POST", path, &[json_type], body);
            assert!(answer.status >= 400, "{name} {path}: {answer:?}");
            assert!(!answer.body.contains("queryType\":"), "{name} {path}");
            let answer = get(port, &format!("{path}?{query}"), &[json_type]);
            assert!(!answer.body.contains("queryType\":"), "{name} {path}");
        }
        // Paths that a proxy may normalize into the GraphQL path are refused.
        for path in ["/orders/order/..\\..\\graphql", "/orders/%2e%2e/graphql"] {
            let answer = get(port, &format!("{path}?{query}"), &[]);
            assert_eq!(answer.status, 400, "{name} {path}: {answer:?}");
        }
        // An `Accept` header that mentions HTML must not get a query past the manifest.
        for accept in ["text/html;q=0", "text/html, application/json"] {
            let headers = [json_type, ("accept", accept)];
            let answer = get(port, &format!("/graphql?{query}"), &headers);
            let is_operation = answer.body.contains("queryType\":");
            // The services have no manifest.
            assert!(
                !is_operation || port != tandem.gateway,
                "{name} {accept}: {answer:?}"
            );
        }
    }
}

#[test]
fn an_answer_holds_nothing_but_what_it_is_about() {
    const CANARY: &str = "canary-7f3a9b";
    let tandem = Tandem::start();
    let wrong = [
        r#"{a{b{"a string token that is long"}}}"#,
        r#"{a(b:"never ends}"#,
        r#"{ """block "#,
        "{a @}",
        "query($x:",
        "\u{0}\u{1}",
        "{a(b:1.2.3)}",
    ];
    for (name, port) in ports(&tandem) {
        for round in 0..40 {
            let secret = format!("{CANARY}-{round}");
            let query = format!(
                r#"{{ __typename # {secret}
            }}"#
            );
            graphql(port, &query, &json!({"secret": secret}));
            for document in wrong {
                let answer = graphql(port, document, &json!({}));
                assert!(!answer.body.contains(CANARY), "{name}: {answer:?}");
                assert!(!answer.body.contains('\u{fffd}'), "{name}: {answer:?}");
            }
        }
    }
}

#[test]
fn pages_that_multiply_pages_are_too_expensive_and_their_cost_is_told() {
    let tandem = Tandem::start();
    let level = |inner: &str| format!("orders(first:100){{nodes{{customer{{{inner}}}}}}}");
    let deep = format!("{{{}}}", level(&level("orders(first:100){nodes{id}}")));
    let edges = "{customers(first:100){edges{node{orders(first:100){edges{node{changes(first:100){nodes{revision}}}}}}}}}";
    let variable = "query($n:Int!){orders(first:$n){nodes{customer{orders(first:$n){nodes{customer{orders(first:$n){nodes{id}}}}}}}}}";
    for (port, document) in [
        (tandem.gateway, deep.as_str()),
        (tandem.orders, deep.as_str()),
        (tandem.gateway, edges),
        (tandem.gateway, variable),
        (tandem.orders, variable),
    ] {
        let answer = graphql(port, document, &json!({"n": 100}));
        assert_eq!(answer.code(), "TOO_EXPENSIVE", "{answer:?}");
        let extensions = &answer.json()["errors"][0]["extensions"];
        assert!(
            extensions["cost"].as_u64() > extensions["limit"].as_u64(),
            "{extensions}"
        );
    }
    let small = graphql(tandem.orders, variable, &json!({"n": 3}));
    assert!(small.json().get("errors").is_none(), "{small:?}");
}

#[test]
fn names_of_operations_do_not_become_labels_without_end() {
    let tandem = Tandem::start();
    for number in 0..300 {
        let query = format!("query Name{number}{} {{ __typename }}", "x".repeat(300));
        assert_eq!(graphql(tandem.gateway, &query, &json!({})).status, 200);
    }
    for (name, port) in ports(&tandem) {
        let scrape = get(port, "/actuator/prometheus", &[]);
        assert!(!scrape.body.contains("Name1"), "{name}");
        assert!(
            scrape.body.len() < 1_000_000,
            "{name}: {}",
            scrape.body.len()
        );
        assert!(
            scrape.body.contains("front_door"),
            "{name}: {}",
            scrape.body
        );
    }
}

#[test]
fn media_types_origins_and_hosts_are_exact_on_every_port() {
    let tandem = Tandem::start();
    let body = br#"{"query":"{__typename}"}"#;
    for (name, port) in ports(&tandem) {
        for kind in [
            "text/plain; application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/jsonp",
        ] {
            let answer = send(port, "POST", "/graphql", &[("content-type", kind)], body);
            assert_eq!(answer.status, 415, "{name} {kind}");
        }
        assert_eq!(
            send(port, "POST", "/graphql", &[], body).status,
            415,
            "{name}"
        );
        let json_type = ("content-type", "APPLICATION/JSON; charset=UTF-8");
        assert_eq!(
            send(port, "POST", "/graphql", &[json_type], body).status,
            200,
            "{name}"
        );
        for foreign in ["http://evil.example", "null", "http://localhost:1"] {
            let answer = send(
                port,
                "POST",
                "/graphql",
                &[json_type, ("origin", foreign)],
                body,
            );
            assert_eq!(answer.status, 403, "{name} {foreign}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        let own = format!("http://127.0.0.1:{port}");
        assert_eq!(
            send(
                port,
                "POST",
                "/graphql",
                &[json_type, ("origin", &own)],
                body
            )
            .status,
            200
        );
        for path in [
            "/graphql?query=%7B__typename%7D",
            "/actuator/health",
            "/orders/list",
        ] {
            for host in [
                "evil.example",
                "127.0.0.1.nip.io:80",
                "localhost.evil.example",
            ] {
                assert_eq!(
                    get(port, path, &[("host", host)]).status,
                    421,
                    "{name} {path} {host}"
                );
            }
        }
        let mutation = "/graphql?query=mutation%7BeraseCustomer(id:1)%7B__typename%7D%7D";
        let answer = get(port, mutation, &[]).json();
        assert!(answer.get("data").is_none(), "{name}: {answer}");
    }
    let mutation = "/graphql?query=mutation%7BeraseCustomer(id:1)%7B__typename%7D%7D";
    let answer = get(tandem.gateway, mutation, &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    for port in [tandem.gateway, tandem.accounts] {
        let create = |headers: &[(&str, &str)], body: &[u8]| {
            send(port, "POST", "/accounts/customer/create", headers, body).status
        };
        assert_eq!(create(&[], b"{}"), 415);
        assert_eq!(create(&[("content-type", "text/plain")], b"{}"), 415);
        assert_eq!(
            create(
                &[("content-type", "application/json")],
                "[".repeat(9_000).as_bytes()
            ),
            400
        );
    }
}

#[test]
fn who_asks_too_often_is_told_so_and_the_refusal_is_counted() {
    let tandem = Tandem::builder().env("TANDEM_RATE_LIMIT", "3").start();
    let mut refused = None;
    for _ in 0..400 {
        let answer = graphql(tandem.accounts, "{__typename}", &json!({}));
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert_eq!(refused.code(), "RATE_LIMITED");
    let seconds = &refused.json()["errors"][0]["extensions"]["retryAfterSeconds"];
    assert_eq!(seconds.to_string(), refused.header("retry-after").unwrap());
    poll("there is a share again", || {
        (graphql(tandem.accounts, "{__typename}", &json!({})).status == 200).then_some(())
    });
    let counted = poll("the refusal is counted", || {
        let scrape = get(tandem.accounts, "/actuator/prometheus", &[]);
        (scrape.status == 200).then_some(scrape.body)
    });
    assert!(counted.contains("front_door_refusals_total") && counted.contains("reason=\"rate\""));
}

#[test]
fn idle_connections_and_slow_heads_are_closed_in_time() {
    let tandem = Tandem::builder()
        .env("TANDEM_HEADER_TIMEOUT_SECONDS", "1")
        .env("TANDEM_BODY_TIMEOUT_SECONDS", "1")
        .env("TANDEM_IDLE_TIMEOUT_SECONDS", "2")
        .start();
    for (name, port) in ports(&tandem) {
        let idle = raw::connect(port);
        let mut slow_head = raw::connect(port);
        slow_head
            .write_all(b"POST /graphql HTTP/1.1\r\nhost: ")
            .unwrap();
        for mut stream in [idle, slow_head] {
            let mut rest = Vec::new();
            // The end of the stream or a reset: both mean closed. A timeout would be neither.
            if let Err(error) = std::io::Read::read_to_end(&mut stream, &mut rest) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
            }
        }
        let mut slow_body = raw::connect(port);
        let head = format!(
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{{"
        );
        slow_body.write_all(head.as_bytes()).unwrap();
        assert_eq!(raw::read(&mut slow_body).status, 408, "{name}");
    }
}

#[test]
fn a_body_that_is_too_large_is_answered_also_for_who_writes_all_of_it_first() {
    let tandem = Tandem::start();
    let body = json!({"query": "{__typename}", "variables": {"a": "x".repeat(3 << 20)}});
    for (name, port) in ports(&tandem) {
        let answer = graphql_with(port, &[], &body);
        assert_eq!(answer.status, 413, "{name}");
    }
    all_answer(&tandem);
}

#[test]
fn an_answer_larger_than_what_is_given_is_refused_on_every_port() {
    let tandem = Tandem::builder().env("TANDEM_MAX_ANSWER", "2000").start();
    for (name, port) in ports(&tandem) {
        let answer = graphql(port, LARGE, &json!({}));
        assert_eq!(answer.code(), "TOO_EXPENSIVE", "{name}: {answer:?}");
        let extensions = &answer.json()["errors"][0]["extensions"];
        assert_eq!(extensions["limit"], 2000, "{name}");
        assert!(extensions["cost"].as_u64().unwrap() > 2000, "{name}");
        assert!(answer.body.len() < 2000, "{name}");
    }
    all_answer(&tandem);
}

#[test]
fn an_answer_larger_than_what_is_given_is_counted_in_the_same_way_on_every_transport() {
    let tandem = Tandem::builder().env("TANDEM_MAX_ANSWER", "2000").start();
    // Only the gateway counts operations.
    let port = tandem.gateway;
    let counted = || {
        let scrape = get(port, "/actuator/prometheus", &[]).body;
        let sum = |metric: &str, label: &str| -> u64 {
            scrape
                .lines()
                .filter(|line| line.starts_with(metric) && line.contains(label))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
                .sum()
        };
        (
            sum("graphql_operations_seconds_count", "outcome=\"ERROR\""),
            sum("front_door_refusals_total", "reason=\"cost\""),
        )
    };
    let (operations, refusals) = counted();
    let large = json!({"query": LARGE});

    let answer = graphql_with(port, &[], &large);
    assert_eq!(answer.code(), "TOO_EXPENSIVE", "{answer:?}");
    assert_eq!(counted(), (operations + 1, refusals + 1), "plain HTTP");

    let events = graphql_with(port, &[("accept", "text/event-stream")], &large);
    assert!(events.body.contains("TOO_EXPENSIVE"), "{events:?}");
    assert_eq!(
        counted(),
        (operations + 2, refusals + 2),
        "server-sent events"
    );

    let mut socket = Socket::ready(port);
    socket.subscribe("1", LARGE);
    let said = socket.hear();
    assert!(said.to_string().contains("TOO_EXPENSIVE"), "{said}");
    assert_eq!(counted(), (operations + 3, refusals + 3), "WebSocket");
}
