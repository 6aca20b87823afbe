//! The REST routes on the gateway's port, and how every path there handles a method or body that it does not accept.

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::Gateway;
use super::stub;

pub async fn get(gateway: &Gateway, path: &str) -> Response {
    reqwest::get(format!("{}{path}", gateway.url))
        .await
        .unwrap()
}

pub async fn problem(answer: Response) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    problem
}

#[tokio::test]
async fn rest_routes_reach_the_services_that_own_them() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;

    let printed = get(&gateway, "/accounts/customer/print").await;
    assert_eq!(printed.headers()["x-from"], "accounts");
    assert!(!printed.headers().contains_key("connection"));
    assert_eq!(printed.text().await.unwrap(), "printed");

    let absent = get(&gateway, "/orders/order/absent").await;
    assert_eq!(absent.status(), 404);
    assert_eq!(absent.text().await.unwrap(), "Customer not found!");
    let found: Value = get(&gateway, "/orders/order/a%20b")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(found, json!({ "id": "a b" }));

    let echo: Value = Client::new()
        .post(format!("{}/accounts/customer/create?x=1%2F2", gateway.url))
        .header("connection", "keep-alive, x-only-here")
        .header("x-only-here", "1")
        .header("x-forwarded-for", "203.0.113.7")
        .header("authorization", "Bearer t")
        .header("origin", &gateway.url)
        .header("sec-fetch-site", "same-origin")
        .json(&json!({ "id": 123456 }))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(echo["uri"], "/accounts/customer/create?x=1%2F2");
    assert_eq!(echo["body"], r#"{"id":123456}"#);
    let headers = &echo["headers"];
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["authorization"], "Bearer t");
    assert_eq!(headers["x-only-here"], Value::Null);
    // The gateway has checked the origin. A service would take the gateway's own page for another origin.
    assert_eq!(headers["origin"], Value::Null);
    assert_eq!(headers["sec-fetch-site"], Value::Null);
    assert_eq!(headers["x-forwarded-for"], "203.0.113.7, 127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(
        headers["x-forwarded-host"],
        gateway.url.trim_start_matches("http://")
    );
}

#[tokio::test]
async fn a_rest_route_to_a_dead_service_answers_503_with_a_problem() {
    let orders = stub::orders().await;
    let gateway = Gateway::start(&stub::nowhere(), &orders.url).await;

    let answer = get(&gateway, "/accounts/customer/print").await;
    assert_eq!(answer.status(), 503);
    let problem = problem(answer).await;
    assert_eq!(problem["title"], "Service Unavailable");
    assert_eq!(problem["instance"], "/accounts/customer/print");
    assert_eq!(
        problem["detail"],
        "The accounts service cannot be reached; try again later."
    );
    assert_eq!(get(&gateway, "/orders/list").await.status(), 200);
}

#[tokio::test]
async fn what_the_gateway_refuses_itself_is_a_problem() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let create = format!("{}/accounts/customer/create", gateway.url);

    let large = Client::new()
        .post(&create)
        .header("content-type", "application/json")
        .body("x".repeat((1 << 20) + 1))
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), 413);
    assert!(
        problem(large).await["detail"]
            .as_str()
            .unwrap()
            .contains("1048576 bytes")
    );

    let unannounced = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 65536]));
    let unannounced = futures::StreamExt::take(unannounced, 17);
    let chunked = Client::new()
        .post(&create)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(unannounced))
        .send()
        .await
        .unwrap();
    assert_eq!(chunked.status(), 413);

    let just_fits = Client::new()
        .post(&create)
        .header("content-type", "application/json")
        .body(valid_json(1 << 20))
        .send()
        .await
        .unwrap();
    assert_eq!(just_fits.status(), 200);

    let wrong_method = get(&gateway, "/accounts/customer/create").await;
    assert_eq!(wrong_method.status(), 405);
    assert_eq!(wrong_method.headers()["allow"], "POST");
    problem(wrong_method).await;

    let nothing_there = get(&gateway, "/accounts/customers").await;
    assert_eq!(nothing_there.status(), 404);
    problem(nothing_there).await;
}

/// A JSON text of this many bytes.
fn valid_json(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// Sends a request and reads the raw bytes until the gateway closes the connection.
async fn raw(gateway: &Gateway, request: &str) -> String {
    let authority = gateway.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(authority).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection reset also ends the read.
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn one_document_passes_with_its_length_and_a_list_in_parts() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    for path in [
        "/accounts/customer/print",
        "/orders/order/1",
        "/orders/order/long",
    ] {
        let answer = get(&gateway, path).await;
        let declared = answer.headers()["content-length"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            !answer.headers().contains_key("transfer-encoding"),
            "{path}"
        );
        let body = answer.bytes().await.unwrap();
        assert_eq!(declared, body.len().to_string(), "{path}");
    }
    let parts = get(&gateway, "/orders/order/parts").await;
    assert!(!parts.headers().contains_key("content-length"));
    assert_eq!(parts.text().await.unwrap(), "[1,2]");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_the_clients_connection() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let answer = get(&gateway, "/orders/order/broken").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    let received = raw(
        &gateway,
        "GET /orders/order/broken HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    assert!(received.starts_with("HTTP/1.1 200 ") && !received.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn head_is_answered_wherever_get_is_and_without_a_body() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let paths = [
        "/accounts/customer/print",
        "/orders/list",
        "/orders/order/1",
        "/orders/order/long",
        "/orders/order/parts",
        "/orders/order/absent",
        "/actuator",
        "/actuator/health",
        "/actuator/health/liveness",
        "/actuator/health/readiness",
        "/actuator/info",
        "/actuator/metrics",
        "/actuator/metrics/none",
        "/actuator/prometheus",
        "/graphql",
        "/graphql/ui/graphiql.css",
        "/nowhere",
    ];
    let client = Client::new();
    for path in paths {
        let ask = async |method: reqwest::Method| {
            let url = format!("{}{path}", gateway.url);
            let request = client
                .request(method, url)
                .header("accept", "text/html, */*");
            request.send().await.unwrap()
        };
        let (head, get) = (
            ask(reqwest::Method::HEAD).await,
            ask(reqwest::Method::GET).await,
        );
        assert_eq!(head.status(), get.status(), "{path}");
        // A current value may have another length a moment later.
        if !path.starts_with("/actuator/m")
            && path != "/actuator/prometheus"
            && path != "/orders/list"
        {
            let of = |answer: &Response| answer.headers().get("content-length").cloned();
            assert_eq!(of(&head), of(&get), "{path}");
        }
        assert_eq!(
            head.headers().get("content-type"),
            get.headers().get("content-type"),
            "{path}"
        );
        // No byte of a body may precede the next response on the same connection.
        let both = format!(
            "HEAD {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\n\r\n\
             GET /actuator/health/liveness HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        let both = raw(&gateway, &both).await;
        let (_, behind) = both.split_once("\r\n\r\n").unwrap();
        assert!(behind.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {both}");
    }
    let create = client.head(format!("{}/accounts/customer/create", gateway.url));
    let create = create.send().await.unwrap();
    assert_eq!(create.status(), 405);
    assert_eq!(create.headers()["allow"], "POST");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_told_which_it_takes() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let client = Client::new();
    for (path, allow) in [
        ("/accounts/customer/create", "POST"),
        ("/accounts/customer/print", "GET, HEAD"),
        ("/orders/list", "GET, HEAD"),
        ("/orders/order/1", "GET, HEAD"),
        ("/actuator", "GET, HEAD"),
        ("/actuator/health/readiness", "GET, HEAD"),
        ("/actuator/metrics/none", "GET, HEAD"),
        ("/actuator/prometheus", "GET, HEAD"),
        ("/graphql/ui/graphiql.css", "GET, HEAD"),
        ("/graphql", "GET, HEAD, POST"),
    ] {
        let url = format!("{}{path}", gateway.url);
        let answer = client.delete(url).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
        assert_eq!(answer.headers()["allow"], allow, "{path}");
        assert!(!answer.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_writes_all_before_it_reads_is_told_that_its_body_is_too_large() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let body = "x".repeat(8 << 20);
    let request = format!(
        "POST /accounts/customer/create HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(&gateway, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
