//! The REST routes, the actuator and the page on the gateway's port.

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::Gateway;
use super::stub;

async fn get(gateway: &Gateway, path: &str) -> Response {
    reqwest::get(format!("{}{path}", gateway.url))
        .await
        .unwrap()
}

async fn problem(answer: Response) -> Value {
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
    // The gateway has judged whose page asks: to the service its own page would be another origin's.
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

#[tokio::test]
async fn the_actuator_tells_the_gateways_own_state() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let json = async |path: &str| get(&gateway, path).await.json::<Value>().await.unwrap();

    assert_eq!(json("/actuator/health").await["status"], "UP");
    assert_eq!(
        json("/actuator/health").await["groups"],
        json!(["liveness", "readiness"])
    );
    assert_eq!(
        json("/actuator/health/liveness").await,
        json!({ "status": "UP" })
    );
    assert_eq!(json("/actuator/health/readiness").await["status"], "UP");
    assert_eq!(
        json("/actuator/info").await["build"]["version"],
        env!("CARGO_PKG_VERSION")
    );

    gateway.query("{ __schema { queryType { name } } }").await;
    let names = json("/actuator/metrics").await["names"]
        .as_array()
        .unwrap()
        .clone();
    println!("{names:?}");
    // The router's own, the front door's and those of our plugins, all as the services tell theirs.
    for name in [
        "http.server.request.duration",
        "front.door.connections",
        "graphql.operations",
    ] {
        assert!(names.contains(&json!(name)), "{names:?}");
    }
    for name in [
        "http.server.request.duration",
        "http_server_request_duration_seconds",
        "graphql.operations",
        "graphql.operations?tag=type:query&tag=outcome:SUCCESS",
    ] {
        let metric = json(&format!("/actuator/metrics/{name}")).await;
        assert_eq!(
            metric["measurements"][0],
            json!({ "statistic": "COUNT", "value": 1.0 }),
            "{name}: {metric}"
        );
        assert_eq!(metric["baseUnit"], "seconds", "{name}");
    }
    let metric = json("/actuator/metrics/front.door.connections").await;
    assert!(
        metric["measurements"][0]["value"].as_f64().unwrap() >= 1.0,
        "{metric}"
    );
    let nothing = "/actuator/metrics/graphql.operations?tag=type:mutation";
    assert_eq!(get(&gateway, nothing).await.status(), 404);
    assert_eq!(get(&gateway, "/actuator/metrics/none").await.status(), 404);

    let prometheus = get(&gateway, "/actuator/prometheus").await;
    assert!(
        prometheus.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(
        prometheus
            .text()
            .await
            .unwrap()
            .contains("http_server_request_duration_seconds_count")
    );
}

#[tokio::test]
async fn a_browser_gets_a_page_that_needs_nothing_from_elsewhere() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let browser = Client::new();
    let answer = browser
        .get(format!("{}/graphql", gateway.url))
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
        .send()
        .await
        .unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    let page = answer.text().await.unwrap();
    assert!(!page.contains("//"), "{page}");

    let files: Vec<&str> = page
        .split('"')
        .filter(|text| text.starts_with("graphql/ui/"))
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        let url = format!("{}/{file}", gateway.url);
        let first = browser.get(&url).send().await.unwrap();
        assert_eq!(first.status(), 200, "{file}");
        let tag = first.headers()["etag"].clone();
        if file.ends_with(".css") {
            let css = first.text().await.unwrap();
            assert!(
                !css.contains("url(http") && !css.contains("@import"),
                "{file} loads from elsewhere"
            );
        }
        let again = browser
            .get(&url)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), 304, "{file}");
    }
}

#[tokio::test]
async fn the_first_page_says_what_runs_to_a_person_and_where_to_go_to_a_program() {
    let gateway = Gateway::start(&stub::nowhere(), "http://localhost:1").await;
    let person = "text/html,application/xhtml+xml,*/*;q=0.8";
    let client = Client::new();
    let ask = async |path: &str, accept: &str| {
        let url = format!("{}{path}", gateway.url);
        client
            .get(url)
            .header("accept", accept)
            .send()
            .await
            .unwrap()
    };

    let page = ask("/", person).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let vary = page.headers()["vary"].to_str().unwrap();
    assert!(
        vary.split(',').any(|name| name.trim() == "accept"),
        "{vary}"
    );
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    let page = page.text().await.unwrap();
    let files: Vec<&str> = page
        .split('"')
        .filter(|text| text.starts_with("ui/"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let answer = get(&gateway, &format!("/{file}")).await;
        assert_eq!(answer.status(), 200, "{file}");
    }

    let links: Value = ask("/", "*/*").await.json().await.unwrap();
    assert_eq!(links["_links"]["graphql"]["href"], "/graphql");

    let status: Value = get(&gateway, "/ui/status.json").await.json().await.unwrap();
    let services = status["services"].as_array().unwrap();
    assert_eq!(services.len(), 2);
    for service in services {
        assert_eq!(service["status"], "UNREACHABLE", "{status}");
        assert!(service["address"].is_string(), "{status}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_page_for_a_person_and_a_problem_for_a_program() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let client = Client::new();
    for (path, status) in [("/nowhere", 404), ("/accounts/customer/create", 405)] {
        let url = format!("{}{path}", gateway.url);
        let by_person = client.get(&url).header("accept", "text/html,*/*;q=0.8");
        let page = by_person.send().await.unwrap();
        assert_eq!(page.status(), status);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.text().await.unwrap().contains("href=\"/graphql\""));
        for accept in ["*/*", "application/json, text/html;q=0.5"] {
            let by_program = client.get(&url).header("accept", accept);
            let answer = by_program.send().await.unwrap();
            assert_eq!(answer.status(), status);
            problem(answer).await;
        }
    }
}

#[tokio::test]
async fn head_answers_as_get_does_without_a_body() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let client = Client::new();
    let pages = [
        "/",
        "/graphql",
        "/ui/page.css",
        "/graphql/ui/graphiql.css",
        "/nowhere",
    ];
    for path in pages {
        let url = format!("{}{path}", gateway.url);
        let accept = ("accept", "text/html");
        let get = client.get(&url).header(accept.0, accept.1);
        let get = get.send().await.unwrap();
        let head = client.head(&url).header(accept.0, accept.1);
        let head = head.send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        for header in ["content-type", "content-length", "etag"] {
            assert_eq!(
                head.headers().get(header),
                get.headers().get(header),
                "{path}"
            );
        }
        assert!(head.text().await.unwrap().is_empty(), "{path}");
    }
}

/// A JSON text of so many bytes.
fn valid_json(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// What is sent and then received until the gateway closes the connection, as it is.
async fn raw(gateway: &Gateway, request: &str) -> String {
    let authority = gateway.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(authority).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset ends what was received as well.
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
        // What is told of the moment may be longer a moment later.
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
        // Nothing of a body comes before the next answer on the same connection.
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
