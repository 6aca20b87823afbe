//! Failing services: what they cost other services, clients and themselves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Gateway;
use super::stub;

/// What a [`Scripted`] service does with a request.
pub(crate) enum Reply {
    /// Responds with this JSON after a delay.
    Answer(Value, Duration),
    /// Responds with this status and this body, whatever it contains.
    Other(&'static str, &'static str),
    /// Closes the connection without a response.
    BreakOff,
    /// Sends the head of a response and nothing more.
    Stall,
}

/// A service that replies as a function of the request's body decides.
pub(crate) struct Scripted {
    pub(crate) url: String,
    calls: Arc<AtomicUsize>,
    left: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Scripted {
    pub(crate) fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, left) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped, reply) =
            ([calls.clone(), left.clone()], stop.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (reply, counted) = (reply.clone(), counted.clone());
                std::thread::spawn(move || converse(stream.unwrap(), &*reply, &counted));
            }
        });
        Self {
            url,
            calls,
            left,
            stop,
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Stalled calls that the other side has cancelled.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn converse(
    mut stream: TcpStream,
    reply: &dyn Fn(&str) -> Reply,
    [calls, left]: &[Arc<AtomicUsize>; 2],
) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    while let Some(body) = request(&mut stream) {
        calls.fetch_add(1, Ordering::Relaxed);
        match reply(&body) {
            Reply::BreakOff => return,
            Reply::Other(status, text) => {
                let kind = if text.starts_with('{') {
                    "application/json"
                } else {
                    "text/html"
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                    text.len()
                );
                if stream.write_all((head + text).as_bytes()).is_err() {
                    return;
                }
            }
            Reply::Stall => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{");
                // Waits until the other side cancels.
                let _ = stream.read(&mut [0]);
                left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Reply::Answer(answer, after) => {
                std::thread::sleep(after);
                let text = answer.to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    text.len()
                );
                if stream.write_all((head + &text).as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

/// The body of the next request on a connection.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")
                        .map(|length| length.trim().parse().unwrap())
                })
                .unwrap_or(0);
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
    }
}

fn at_once(answer: Value) -> Reply {
    Reply::Answer(answer, Duration::ZERO)
}

#[tokio::test]
async fn each_part_that_failed_has_an_error_with_the_clients_path() {
    let orders = stub::orders().await;
    let gateway = Gateway::start(&stub::nowhere(), &orders.url).await;

    let answer = gateway
        .query(r#"{ c: orderingCustomer(id: "1") { id r: revision } d: orderingCustomer(id: "2") { revision } away: customer(id: "3") { id } }"#)
        .await;

    assert_eq!(answer["data"]["c"], json!({"id": "1", "r": null}));
    assert_eq!(answer["data"]["away"], Value::Null);
    let errors = answer["errors"].as_array().unwrap();
    let mut paths: Vec<String> = errors
        .iter()
        .map(|error| error["path"].to_string())
        .collect();
    paths.sort();
    assert_eq!(
        paths,
        [r#"["away"]"#, r#"["c","r"]"#, r#"["d","revision"]"#],
        "{answer}"
    );
    for error in errors {
        assert_eq!(
            error["extensions"],
            json!({"code": "UNAVAILABLE", "service": "accounts"})
        );
        assert!(error.get("locations").is_none(), "{error}");
    }
}

#[tokio::test]
async fn what_a_service_refuses_as_a_whole_is_told_of_each_part_in_its_own_words() {
    let orders = stub::orders().await;
    for (status, code) in [
        ("503 Service Unavailable", "UNAVAILABLE"),
        ("429 Too Many Requests", "RATE_LIMITED"),
        ("200 OK", "TOO_EXPENSIVE"),
    ] {
        let body = json!({"errors": [{"message": "not now", "extensions": {"code": code, "retryAfterSeconds": 3}}]});
        let body: &'static str = body.to_string().leak();
        let accounts = Scripted::start(move |_| Reply::Other(status, body));
        let gateway = Gateway::start(&accounts.url, &orders.url).await;
        let answer = gateway
            .query(r#"{ c: orderingCustomer(id: "1") { id r: revision } d: orderingCustomer(id: "2") { revision } away: customer(id: "3") { id } }"#)
            .await;
        assert_eq!(
            answer["data"]["c"],
            json!({"id": "1", "r": null}),
            "{answer}"
        );
        let errors = answer["errors"].as_array().unwrap();
        let mut paths: Vec<String> = errors
            .iter()
            .map(|error| error["path"].to_string())
            .collect();
        paths.sort();
        assert_eq!(
            paths,
            [r#"["away"]"#, r#"["c","r"]"#, r#"["d","revision"]"#],
            "{answer}"
        );
        for error in errors {
            assert_eq!(error["message"], "not now", "{answer}");
            assert_eq!(
                error["extensions"],
                json!({"code": code, "service": "accounts", "retryAfterSeconds": 3})
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_of_graphql_reaches_no_client_and_a_query_is_sent_once_more() {
    for (status, body, calls) in [
        ("502 Bad Gateway", "<html>proxy 10.0.0.7</html>", 2),
        ("200 OK", "<html>proxy 10.0.0.7</html>", 2),
        (
            "500 Internal Server Error",
            r#"{"errors":[{"message":"proxy 10.0.0.7"}]}"#,
            1,
        ),
    ] {
        let accounts = Scripted::start(move |_| Reply::Other(status, body));
        let gateway = Gateway::start(&accounts.url, &stub::nowhere()).await;
        let answer = gateway.query(r#"{ c: customer(id: "1") { id } }"#).await;
        assert_eq!(answer["data"], json!({"c": null}), "{answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["path"], json!(["c"]), "{answer}");
        assert_eq!(
            error["extensions"],
            json!({"code": "UNAVAILABLE", "service": "accounts"})
        );
        let text = answer.to_string();
        assert!(
            !text.contains("10.0.0.7") && !text.contains("html"),
            "{text}"
        );
        assert_eq!(accounts.calls(), calls, "{status}");

        let answer = gateway
            .query(r#"mutation { eraseCustomer(id: "1") { __typename } }"#)
            .await;
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "UNAVAILABLE",
            "{answer}"
        );
        assert_eq!(accounts.calls(), calls + 1, "{status}");
    }
}

#[tokio::test]
async fn an_error_of_an_entity_has_the_clients_path_and_no_place_in_the_routers_document() {
    let orders = stub::orders().await;
    let accounts = Scripted::start(|_| {
        at_once(json!({
            "data": {"_entities": [{"revision": null}]},
            "errors": [{"message": "m", "locations": [{"line": 1, "column": 9}], "path": ["_entities", 0, "revision"], "extensions": {"code": "NOT_FOUND"}}],
        }))
    });
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let answer = gateway
        .query(r#"{ c: orderingCustomer(id: "1") { id revision } }"#)
        .await;
    let error = &answer["errors"][0];
    assert_eq!(error["path"], json!(["c", "revision"]), "{answer}");
    assert_eq!(
        error["extensions"],
        json!({"code": "NOT_FOUND", "service": "accounts"})
    );
    assert!(error.get("locations").is_none(), "{answer}");
}

#[tokio::test]
async fn a_query_whose_connection_broke_is_sent_once_more_and_a_mutation_never() {
    let broke = AtomicBool::new(false);
    let accounts = Scripted::start(move |body| {
        if body.contains("mutation") || !broke.swap(true, Ordering::Relaxed) {
            return Reply::BreakOff;
        }
        at_once(json!({"data": {"customer": {"id": "1"}}}))
    });
    let gateway = Gateway::start(&accounts.url, &stub::nowhere()).await;
    let answer = gateway.query(r#"{ customer(id: "1") { id } }"#).await;
    assert_eq!(answer, json!({"data": {"customer": {"id": "1"}}}));
    assert_eq!(accounts.calls(), 2);

    let answer = gateway
        .query(r#"mutation { eraseCustomer(id: "1") { __typename } }"#)
        .await;
    assert_eq!(
        answer["errors"][0]["extensions"]["code"], "UNAVAILABLE",
        "{answer}"
    );
    assert_eq!(accounts.calls(), 3);
}

#[tokio::test]
async fn an_answer_that_never_ends_costs_no_more_than_the_time_limit() {
    let accounts = Scripted::start(|_| Reply::Stall);
    let orders = stub::orders().await;
    let gateway = Gateway::start_with(&accounts.url, &orders.url, |configuration| {
        *configuration = configuration.replace("request_timeout: 10s", "request_timeout: 300ms");
    })
    .await;
    let answer = gateway
        .query(r#"{ customer(id: "1") { id } orderingCustomer(id: "1") { id } }"#)
        .await;
    assert_eq!(
        answer["data"],
        json!({"customer": null, "orderingCustomer": {"id": "1"}})
    );
    assert_eq!(answer["errors"][0]["path"], json!(["customer"]), "{answer}");
    assert!(
        answer["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("in time"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_left_alone_and_found_again() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = is_well.clone();
    let accounts = Scripted::start(move |_| {
        if well.load(Ordering::Relaxed) {
            at_once(json!({"data": {"customer": {"id": "1"}}}))
        } else {
            Reply::BreakOff
        }
    });
    let gateway = Gateway::start_with(&accounts.url, &stub::nowhere(), |configuration| {
        *configuration = configuration
            .replace("retry_queries: true", "retry_queries: false")
            // Longer than the queries below take, even on a slow machine.
            .replace("breaker_pause_ms: 1000", "breaker_pause_ms: 30000");
    })
    .await;
    let query = r#"{ customer(id: "1") { id } }"#;
    for _ in 0..60 {
        let answer = gateway.query(query).await;
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "UNAVAILABLE",
            "{answer}"
        );
        assert_eq!(answer["errors"][0]["path"], json!(["customer"]), "{answer}");
    }
    assert!(accounts.calls() < 30, "{} calls", accounts.calls());
    let metrics = reqwest::Client::new()
        .get(format!("{}/actuator/prometheus", gateway.url))
        // As Prometheus sends it.
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert!(!metrics.headers().contains_key("content-encoding"));
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains(r#"code="SUBGRAPH_CIRCUIT_BREAKER_REJECTED""#),
        "{metrics}"
    );

    is_well.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    while gateway.query(query).await.get("errors").is_some() {
        assert!(begin.elapsed() < Duration::from_secs(90), "not found again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_fields_of_a_mutation_are_carried_out_strictly_one_after_the_other() {
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let note =
        |log: &Arc<Mutex<Vec<String>>>, what: &str| log.lock().unwrap().push(what.to_owned());
    let (of_orders, of_accounts) = (log.clone(), log.clone());
    let orders = Scripted::start(move |body| {
        let id = if body.contains("\\\"A\\\"") { "A" } else { "B" };
        note(&of_orders, &format!("cancel {id}"));
        let order =
            json!({"id": id, "customer": {"__typename": "Customer", "id": format!("of-{id}")}});
        at_once(json!({"data": {id.to_lowercase(): {"order": order}}}))
    });
    let accounts = Scripted::start(move |body| {
        let id = if body.contains("of-A") { "A" } else { "B" };
        // Delays the entry in the log. A call that does not wait for this one is logged before it.
        std::thread::sleep(Duration::from_millis(300));
        note(&of_accounts, &format!("revision of {id}"));
        at_once(json!({"data": {"_entities": [{"revision": 7}]}}))
    });
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let mutation = r#"mutation { a: cancelOrder(id: "A") { order { id customer { revision } } } b: cancelOrder(id: "B") { order { id customer { revision } } } }"#;
    let answer = gateway.query(mutation).await;
    let order = |id: &str| json!({"order": {"id": id, "customer": {"revision": 7}}});
    assert_eq!(answer, json!({"data": {"a": order("A"), "b": order("B")}}));
    assert_eq!(
        *log.lock().unwrap(),
        ["cancel A", "revision of A", "cancel B", "revision of B"]
    );
    let data = answer.to_string();
    assert!(data.find("\"a\"") < data.find("\"b\""), "{data}");
}

#[tokio::test]
async fn behind_a_field_that_failed_no_other_is_begun() {
    let orders = Scripted::start(|body| {
        if body.contains("\\\"A\\\"") {
            at_once(
                json!({"data": null, "errors": [{"message": "no", "path": ["a"], "extensions": {"code": "NOT_FOUND"}}]}),
            )
        } else {
            at_once(json!({"data": {"b": {"order": {"id": "B"}}}}))
        }
    });
    let gateway = Gateway::start(&stub::nowhere(), &orders.url).await;
    let mutation = r#"mutation { a: cancelOrder(id: "A") { order { id } } b: cancelOrder(id: "B") { order { id } } }"#;
    let answer = gateway.query(mutation).await;
    assert_eq!(answer["data"], Value::Null);
    assert_eq!(answer["errors"][0]["path"], json!(["a"]), "{answer}");
    assert_eq!(orders.calls(), 1);
}

#[tokio::test]
async fn a_request_that_ends_in_an_error_is_logged_with_its_id_its_operation_and_the_code() {
    let gateway = Gateway::start_logged(&stub::nowhere(), &stub::nowhere()).await;
    let send = async |id: &str, body: Value| {
        reqwest::Client::new()
            .post(format!("{}/graphql", gateway.url))
            .header("x-request-id", id)
            .json(&body)
            .send()
            .await
            .unwrap();
    };
    let known = "query Customer($id: ID!) { customer(id: $id) { id } }";
    send(
        "away-1",
        json!({"query": known, "variables": {"id": "ada-secret"}}),
    )
    .await;
    send(
        "refused-1",
        json!({"query": "query Mine { shoeSize }", "operationName": "Mine"}),
    )
    .await;
    send("fine-1", json!({"query": "{ __typename }"})).await;
    for (id, operation, code) in [
        ("away-1", "Customer", "UNAVAILABLE"),
        ("refused-1", "Other", "BAD_USER_INPUT"),
    ] {
        let line = gateway
            .logged(|line| line["request_id"] == id && line["operation"] == operation)
            .await;
        assert!(line.to_string().contains(code), "{line}");
        assert!(!line.to_string().contains("ada-secret") && !line.to_string().contains("shoeSize"));
    }
    assert!(!gateway.log().contains("fine-1"), "{}", gateway.log());
}
