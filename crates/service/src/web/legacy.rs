//! Routes for older clients. Each answer says that its route is deprecated (RFC 9745), which operation replaces it,
//! and, if configured, when it will be removed (RFC 8594). Answers that the front door or the gateway gives instead of
//! a service say the same ([`notices`]).

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::routing::MethodRouter;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use tandem_front_door::Notices;
use utoipa::openapi::{Deprecated, OpenApi};

use super::graphql_refusal::PATH;

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");
/// When GraphQL replaced the routes: 2026-01-01, as seconds since 1970 (RFC 9745, section 2.1).
const DEPRECATED_SINCE: HeaderValue = HeaderValue::from_static("@1767225600");

/// A route for older clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldRoute {
    /// The service that has it.
    pub service: &'static str,
    /// Its path. A part in braces stands for any segment.
    pub path: &'static str,
    /// The name of the operation that replaces it.
    pub title: &'static str,
    /// The text of that operation.
    pub operation: &'static str,
}

/// Creates a customer.
pub const CREATE_CUSTOMER: OldRoute = OldRoute {
    service: "accounts",
    path: "/accounts/customer/create",
    title: "CreateCustomer",
    operation: "mutation CreateCustomer($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id revision } } }",
};
/// Prints a sample of a customer.
pub const PRINT_CUSTOMER: OldRoute = OldRoute {
    service: "accounts",
    path: "/accounts/customer/print",
    title: "CustomerForm",
    operation: r#"query CustomerForm { __type(name: "CreateCustomerInput") { inputFields { name description type { name kind ofType { name } } } } }"#,
};
/// Lists all orders.
pub const ALL_ORDERS: OldRoute = OldRoute {
    service: "orders",
    path: "/orders/list",
    title: "Orders",
    operation: "query Orders($after: String) { orders(first: 100, after: $after) { nodes { id status total customer { id name { firstName lastName } } } pageInfo { hasNextPage endCursor } } }",
};
/// Shows the orders of one customer.
pub const ORDERS_OF_CUSTOMER: OldRoute = OldRoute {
    service: "orders",
    path: "/orders/order/{customer_id}",
    title: "OrderingCustomer",
    operation: "query OrderingCustomer($id: ID!) { orderingCustomer(id: $id) { id name { firstName lastName } orders { nodes { id status total } } } }",
};

/// All routes for older clients.
pub const OLD_ROUTES: [OldRoute; 4] = [
    CREATE_CUSTOMER,
    PRINT_CUSTOMER,
    ALL_ORDERS,
    ORDERS_OF_CUSTOMER,
];

impl OldRoute {
    /// The operation that replaces the route, as a `Link` header.
    fn link(&self) -> Option<HeaderValue> {
        // We make the text ourselves, so it is a valid header value.
        HeaderValue::try_from(format!(
            "<{PATH}?query={}>; rel=\"successor-version\"; title=\"{}\"",
            encoded(self.operation),
            self.title
        ))
        .ok()
    }
}

/// The routes of this service.
#[must_use]
pub fn of_service(name: &str) -> Vec<OldRoute> {
    let routes = OLD_ROUTES.into_iter();
    routes.filter(|route| route.service == name).collect()
}

/// The headers that a front door adds to each answer on these routes.
#[must_use]
pub fn notices(routes: &[OldRoute], sunset: Option<&Sunset>) -> Notices {
    let mut notices = Notices::default();
    for route in routes {
        let mut headers = vec![(DEPRECATION, DEPRECATED_SINCE)];
        headers.extend(route.link().map(|link| (header::LINK, link)));
        headers.extend(sunset.map(|sunset| (SUNSET, sunset.0.clone())));
        notices = notices.with(route.path, headers);
    }
    notices
}

/// A route whose answers name the operation that replaces it.
pub fn replaced_by<S>(route: MethodRouter<S>, old: &OldRoute) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let link = old.link();
    route.layer(middleware::from_fn(move |request: Request, next: Next| {
        let link = link.clone();
        async move {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert(DEPRECATION, DEPRECATED_SINCE);
            if let Some(link) = link {
                headers.append(header::LINK, link);
            }
            response
        }
    }))
}

/// Marks the routes as deprecated in their OpenAPI document.
pub fn deprecate(document: &mut OpenApi) {
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            operation.deprecated = Some(Deprecated::True);
        }
    }
}

/// When the deprecated routes will be removed, as a `Sunset` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sunset(HeaderValue);

impl Sunset {
    /// Reads a day (`2027-06-30`, meaning its beginning in UTC) or a time (`2027-06-30T12:00:00Z`).
    ///
    /// # Errors
    /// A message, if the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let moment = match text.parse::<NaiveDate>() {
            Ok(day) => day.and_time(NaiveTime::MIN).and_utc(),
            Err(_) => DateTime::parse_from_rfc3339(text)
                .map_err(|_| {
                    "write a day such as 2027-06-30, or a moment such as 2027-06-30T12:00:00Z"
                        .to_owned()
                })?
                .with_timezone(&Utc),
        };
        // An HTTP-date (RFC 9110, section 5.6.7).
        let written = moment.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        HeaderValue::try_from(written)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Adds the header to an answer of a deprecated route.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        if headers.contains_key(DEPRECATION) {
            headers.insert(SUNSET, self.0.clone());
        }
    }
}

/// Percent-encodes a text for use in a query (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut written = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$'()*,:@/".contains(&byte) {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::web::HttpSettings;
    use crate::web::middleware::with_middleware;

    async fn answer(settings: &HttpSettings, path: &str) -> HeaderMap {
        let router = Router::new()
            .route(
                "/old",
                replaced_by(
                    get(async || "old"),
                    &OldRoute {
                        service: "test",
                        path: "/old",
                        title: "A",
                        operation: "query A { a(b: \"c\") }",
                    },
                ),
            )
            .route("/new", get(async || "new"));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = with_middleware(router, settings).oneshot(request).await;
        response.unwrap().headers().clone()
    }

    #[tokio::test]
    async fn an_old_route_says_since_when_what_replaces_it_and_its_end_if_that_is_known() {
        let mut settings = HttpSettings::default();
        let headers = answer(&settings, "/old").await;
        assert_eq!(headers["deprecation"], "@1767225600");
        assert_eq!(
            headers["link"],
            "</graphql?query=query%20A%20%7B%20a(b:%20%22c%22)%20%7D>; rel=\"successor-version\"; title=\"A\""
        );
        assert!(!headers.contains_key("sunset"));

        settings.rest_sunset = Some(Sunset::parse("2027-06-30").unwrap());
        let headers = answer(&settings, "/old").await;
        assert_eq!(headers["sunset"], "Wed, 30 Jun 2027 00:00:00 GMT");
        let headers = answer(&settings, "/new").await;
        assert!(!headers.contains_key("sunset") && !headers.contains_key("deprecation"));
    }

    #[test]
    fn each_service_has_its_own_old_routes_and_each_names_what_replaces_it() {
        assert_eq!(of_service("accounts"), [CREATE_CUSTOMER, PRINT_CUSTOMER]);
        assert_eq!(of_service("orders"), [ALL_ORDERS, ORDERS_OF_CUSTOMER]);
        for route in OLD_ROUTES {
            let link = route.link().unwrap();
            let title = format!("title=\"{}\"", route.title);
            assert!(link.to_str().unwrap().contains(&title), "{link:?}");
            assert!(route.operation.contains(route.title));
        }
    }

    #[test]
    fn a_sunset_is_a_day_or_a_moment() {
        let moment = Sunset::parse("2027-06-30T14:00:00+02:00").unwrap();
        assert_eq!(moment.0, "Wed, 30 Jun 2027 12:00:00 GMT");
        for wrong in ["", "soon", "30.06.2027", "2027-13-01"] {
            assert!(Sunset::parse(wrong).unwrap_err().contains("2027-06-30"));
        }
    }
}
