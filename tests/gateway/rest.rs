//! The REST routes, the actuator and the page on the gateway's port.

use reqwest::{Client, Response};
use serde_json::{Value, json};

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
        .body(reqwest::Body::wrap_stream(unannounced))
        .send()
        .await
        .unwrap();
    assert_eq!(chunked.status(), 413);

    let just_fits = Client::new()
        .post(&create)
        .body("x".repeat(1 << 20))
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
    let name = "http_server_request_duration_seconds";
    assert!(names.contains(&json!(name)), "{names:?}");
    let metric = json(&format!("/actuator/metrics/{name}")).await;
    assert_eq!(metric["name"], name);
    assert_eq!(
        metric["measurements"][0],
        json!({ "statistic": "COUNT", "value": 1 })
    );
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
