//! What the gateway's port serves itself: the actuator, and pages for browsers.

use reqwest::Client;
use serde_json::{Value, json};

use super::process::Gateway;
use super::rest::{get, problem};
use super::stub;

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
    // The metrics of the router, the front door and our plugins, all in the form of the services' metrics.
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
