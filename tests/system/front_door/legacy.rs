//! The REST routes of older clients say that they are deprecated, and what replaces them.

use super::*;

#[test]
fn each_old_route_says_what_replaces_it_and_when_it_ends() {
    let tandem = Tandem::builder()
        .flag("--rest-sunset")
        .flag("2030-06-30")
        .start();
    tandem.customer(&Client::new(), "1");
    let (accounts, orders) = (tandem.accounts, tandem.orders);
    for (owner, path) in [
        (accounts, "/accounts/customer/create"),
        (accounts, "/accounts/customer/print"),
        (orders, "/orders/list"),
        (orders, "/orders/order/1"),
        (orders, "/orders/order/nobody"),
    ] {
        for port in [owner, tandem.gateway] {
            let methods: &[&str] = match path {
                "/accounts/customer/create" => &["POST"],
                _ => &["GET", "HEAD"],
            };
            for method in methods {
                let kind = ("content-type", "application/json");
                let body: &[u8] = if *method == "POST" { b"{}" } else { b"" };
                let answer = send(port, method, path, &[kind], body);
                assert_eq!(
                    answer.header("deprecation"),
                    Some("@1767225600"),
                    "{answer:?}"
                );
                assert_eq!(
                    answer.header("sunset"),
                    Some("Sun, 30 Jun 2030 00:00:00 GMT"),
                    "{answer:?}"
                );
                let link = answer.header("link").unwrap();
                assert!(link.contains("rel=\"successor-version\""), "{link}");
                follow(port, link.split(['<', '>']).nth(1).unwrap());
            }
        }
    }
    let answer = get(tandem.gateway, "/actuator/health", &[]);
    assert_eq!(answer.header("deprecation"), None);
}

/// The link must lead to an operation that this port accepts.
fn follow(port: u16, target: &str) {
    let variables = "&variables=%7B%22id%22%3A%221%22%7D";
    let answer = get(port, &format!("{target}{variables}"), &[]);
    if target.contains("mutation") {
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    } else {
        assert!(
            answer.json().get("errors").is_none(),
            "{target}: {answer:?}"
        );
    }
}
