//! Pages of other origins are refused unless their origin is listed. A listed origin may use GraphQL and REST (Fetch,
//! "CORS protocol").

use super::*;

const SHOP: &str = "https://shop.example";

/// Routes of each port, and their methods.
fn routes(tandem: &Tandem) -> Vec<(u16, &'static str, &'static str)> {
    let (gateway, accounts, orders) = (tandem.gateway, tandem.accounts, tandem.orders);
    vec![
        (gateway, "POST", "/graphql"),
        (accounts, "POST", "/graphql"),
        (orders, "POST", "/graphql"),
        (gateway, "POST", "/accounts/customer/create"),
        (accounts, "POST", "/accounts/customer/create"),
        (gateway, "GET", "/orders/list"),
        (orders, "GET", "/orders/list"),
    ]
}

fn ask(port: u16, method: &str, path: &str, origin: &str) -> raw::Answer {
    let headers = [("origin", origin), ("content-type", "application/json")];
    let body: &[u8] = match path {
        "/graphql" => br#"{"query":"{__typename}"}"#,
        _ if method == "POST" => b"{}",
        _ => b"",
    };
    send(port, method, path, &headers, body)
}

fn preflight(port: u16, path: &str, origin: &str) -> raw::Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "content-type,authorization",
        ),
    ];
    send(port, "OPTIONS", path, &headers, b"")
}

#[test]
fn pages_of_other_origins_are_told_nothing_unless_theirs_is_listed() {
    let tandem = Tandem::start();
    for (port, method, path) in routes(&tandem) {
        for answer in [preflight(port, path, SHOP), ask(port, method, path, SHOP)] {
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        }
    }
}

#[test]
fn pages_of_a_listed_origin_may_call_graphql_and_rest_and_no_others() {
    let tandem = Tandem::builder()
        .env("TANDEM_ALLOWED_ORIGINS", SHOP)
        .start();
    for (port, method, path) in routes(&tandem) {
        let answer = preflight(port, path, SHOP);
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization"), "{allowed}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(methods.contains(method), "{methods}");

        let answer = ask(port, method, path, SHOP);
        assert_ne!(answer.status, 403, "{path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let is_told_apart = answer
            .head
            .lines()
            .any(|line| line.eq_ignore_ascii_case("vary: origin"));
        assert!(is_told_apart, "{path}: {}", answer.head);

        for foreign in [
            "https://evil.example",
            "null",
            "https://shop.example.evil.example",
        ] {
            for answer in [
                preflight(port, path, foreign),
                ask(port, method, path, foreign),
            ] {
                assert_eq!(answer.status, 403, "{path} {foreign}: {answer:?}");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
}

#[test]
fn pages_and_answers_say_what_a_browser_may_make_of_them() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        for path in ["/", "/graphql", "/actuator/health", "/nothing"] {
            let answer = get(port, path, &[("accept", "text/html")]);
            let policy = answer.header("content-security-policy").unwrap_or_default();
            assert!(policy.contains("default-src"), "{name} {path}: {answer:?}");
            assert!(
                policy.contains("frame-ancestors 'none'"),
                "{name} {path}: {policy}"
            );
            assert!(!policy.contains("unsafe-eval"), "{name} {path}: {policy}");
            for (header, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
            ] {
                assert_eq!(answer.header(header), Some(value), "{name} {path}");
            }
        }
    }
}
