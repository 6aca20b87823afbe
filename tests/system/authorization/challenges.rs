//! The challenge in a refusal says which token is needed (RFC 6750, section 3): on each port, also through the gateway.

use crate::support::Tandem;

const INSUFFICIENT: &str = "Bearer error=\"insufficient_scope\", scope=";

#[test]
fn a_route_that_is_refused_says_which_token_it_wants() {
    let tandem = Tandem::builder().flag("--auth").start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = reqwest::Client::new();
    let ask = |url: &str, token: Option<&str>| {
        let mut request = match url.ends_with("/create") {
            true => http
                .post(url)
                .header("content-type", "application/json")
                .body("{}"),
            false => http.get(url),
        };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let challenge = answer.headers().get("www-authenticate");
            let challenge = challenge.map(|it| it.to_str().unwrap().to_owned());
            (answer.status().as_u16(), challenge.unwrap_or_default())
        })
    };
    let stranger = tandem.token("stranger", "customers:erase");
    for (url, scope) in [
        (
            tandem.accounts_url("/accounts/customer/create"),
            "customers:write",
        ),
        (
            tandem.gateway_url("/accounts/customer/create"),
            "customers:write",
        ),
        (tandem.orders_url("/orders/list"), "orders:read"),
        (tandem.gateway_url("/orders/list"), "orders:read"),
        (tandem.orders_url("/orders/order/7"), "orders:read"),
        (tandem.accounts_url("/admin/health"), "operations"),
        (tandem.orders_url("/admin/dead-letters"), "operations"),
        (
            tandem.gateway_url("/operations/orders/admin/health"),
            "operations",
        ),
    ] {
        assert_eq!(
            ask(&url, Some(&stranger)),
            (403, format!("{INSUFFICIENT}\"{scope}\"")),
            "{url}"
        );
        assert_eq!(ask(&url, None), (401, "Bearer".to_owned()), "{url}");
    }
    let bad = ask(&tandem.orders_url("/orders/list"), Some("nonsense"));
    let invalid = "Bearer error=\"invalid_token\"".to_owned();
    assert_eq!(bad, (401, invalid));
}
