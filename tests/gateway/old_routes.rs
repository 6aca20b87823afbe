//! The REST routes of older clients at the gateway: what it answers itself, and which route of a service a request
//! reaches.

use reqwest::Client;
use serde_json::Value;
use tandem_backends::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{self, Gateway};
use super::stub;

#[tokio::test]
async fn what_the_gateway_answers_itself_on_an_old_route_says_that_it_is_old() {
    let (data, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
    let away = stub::nowhere();
    let mut command = process::command(port, &away, &away, data.path());
    command.args(["--rest-sunset", "2030-06-30"]);
    let gateway = Gateway::start_command(command, port, data).await;
    let client = Client::new();
    let create = format!("{}/accounts/customer/create", gateway.url);
    let list = format!("{}/orders/list", gateway.url);
    let one = format!("{}/orders/order/1", gateway.url);
    let json = ("content-type", "application/json");
    for (request, status) in [
        (client.get(&create), 405),
        (client.post(&create).body("x"), 415),
        (
            client
                .post(&create)
                .header(json.0, json.1)
                .body("x".repeat(2 << 20)),
            413,
        ),
        (client.get(&list), 503),
        (client.get(&one), 503),
        (client.get(&list).header("host", "elsewhere.example"), 421),
        (
            client
                .get(&one)
                .header("origin", "https://elsewhere.example"),
            403,
        ),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{answer:?}");
        let said = answer.headers();
        assert_eq!(said["deprecation"], "@1767225600", "{answer:?}");
        assert_eq!(said["sunset"], "Sun, 30 Jun 2030 00:00:00 GMT");
        let link = said["link"].to_str().unwrap();
        assert!(link.contains("rel=\"successor-version\""), "{link}");
    }
    for path in ["/actuator/health", "/orders/nowhere"] {
        let url = format!("{}{path}", gateway.url);
        let answer = client.get(url).send().await.unwrap();
        assert!(!answer.headers().contains_key("deprecation"), "{path}");
    }
}

/// The raw response to a request line that no client library would send.
async fn raw(gateway: &Gateway, target: &str) -> String {
    let authority = gateway.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(authority).await.unwrap();
    let request =
        format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection reset also ends the read.
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_writing_of_a_path_leads_a_request_to_another_route_of_a_service() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let authority = gateway.url.trim_start_matches("http://");
    let query = "query=%7B__typename%7D";
    for path in [
        "/orders/order/../../graphql",
        "/orders/order/..",
        "/orders/order/%2e%2e/%2e%2e/graphql",
        "/orders/order/..%2f..%2fgraphql",
        "/orders/order/%2e%2e%2f%2e%2e%2fgraphql",
        "/orders/order/%252e%252e%252fgraphql",
        "/orders/order/..\\..\\graphql",
        "/orders/order/..%5c..%5cgraphql",
        "/orders/order/%5c%2e%2e%5cgraphql",
    ] {
        for target in [
            format!("{path}?{query}"),
            format!("http://{authority}{path}?{query}"),
        ] {
            let answer = raw(&gateway, &target).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
        }
    }
    assert!(orders.take_requests().is_empty());
    // A segment with encoded characters stays one segment.
    for (id, shown) in [
        ("a%2Fb", "a/b"),
        ("@elsewhere.example", "@elsewhere.example"),
        ("http:%2F%2Felsewhere.example", "http://elsewhere.example"),
        ("a%20%25b%3F%23", "a %b?#"),
        ("%C3%A9", "é"),
        ("...", "..."),
    ] {
        let answer = raw(&gateway, &format!("/orders/order/{id}")).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{id}: {answer}"));
        assert_eq!(body["id"], shown);
    }
    let elsewhere = format!("http://user:secret@{authority}/orders/order/1");
    let answer = raw(&gateway, &elsewhere).await;
    assert!(!answer.contains("secret"), "{answer}");
}
