//! The OpenAPI document of the operator's routes. It is the same for both services, and for the gateway that passes
//! them on.

use tandem_service::web::problem::{FieldError, Problem};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, ContentBuilder, PathItem, Ref, RefOr, Response, ResponseBuilder,
        SecurityRequirement,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        server::{ServerBuilder, ServerVariableBuilder},
    },
};

use super::{audit, dead_letters, health, keys, log, rebuild, rotation};

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tandem operations",
        description = "What an operator asks of accounts and of orders. Each service has these routes on its own port, and the gateway passes those on that its page needs, under /operations/accounts and /operations/orders. They want a token with the scope `operations`, or on a service's own port the one that is derived from the sealing key."
    ),
    paths(
        health::show,
        log::partitions,
        log::status,
        log::accept,
        log::restore,
        dead_letters::list,
        dead_letters::show,
        dead_letters::retry,
        dead_letters::discard,
        dead_letters::discard_all,
        dead_letters::job,
        keys::list,
        keys::publish,
        rotation::begin,
        rotation::show,
        rebuild::show,
        rebuild::start,
        rebuild::stop,
        rebuild::remove,
        rebuild::take_back,
        audit::show
    ),
    components(schemas(Problem, FieldError)),
    modifiers(&Reached)
)]
struct Document;

/// Adds the servers of the routes, and the credentials that they need.
struct Reached;

impl Modify for Reached {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let service = ServerVariableBuilder::new()
            .default_value("orders")
            .enum_values(Some(["accounts", "orders"]));
        document.servers = Some(vec![
            ServerBuilder::new()
                .url("/")
                .description(Some("a service's own port"))
                .build(),
            ServerBuilder::new()
                .url("/operations/{service}")
                .description(Some("the gateway, which passes on what its page needs"))
                .parameter("service", service)
                .build(),
        ]);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        document
            .components
            .get_or_insert_with(Components::new)
            .add_security_scheme("operator", SecurityScheme::Http(bearer.build()));
        document.security = Some(vec![SecurityRequirement::new::<_, [String; 0], String>(
            "operator",
            [],
        )]);
        let refused = |description: &str| -> RefOr<Response> {
            let problem = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", problem)
                .build()
                .into()
        };
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let responses = &mut operation.responses.responses;
            for (status, description) in [
                ("401", "No token, or one that is not good."),
                ("403", "The token has not the scope `operations`."),
            ] {
                responses.insert(status.to_owned(), refused(description));
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use tandem_event_path::{
        checkpoint::Checkpoint,
        log_memory::{Alarm, LogView, PartitionView, Remembered},
        rebuild::Progress,
        store::{DeadLetterFilter, LetterId},
        waiting::WaitingView,
    };
    use tandem_service::web::actuator::{ComponentHealth, Health};

    use super::*;

    fn described() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    #[test]
    fn the_committed_document_is_that_of_the_code() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../schema/openapi/operations.json"
        );
        let made = tandem_service::web::openapi::committed(&document()).unwrap();
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == made,
            "schema/openapi/operations.json is stale: UPDATE_SCHEMA=1 cargo test -p tandem-assembly"
        );
    }

    #[tokio::test]
    async fn what_is_described_has_the_members_that_are_written() {
        let checkpoint = Checkpoint {
            offset: 1,
            fingerprint: "f".to_owned(),
        };
        let remembered = Remembered {
            begin: 0,
            last: checkpoint.clone(),
            proven: None,
            identity: None,
        };
        let partition = PartitionView {
            partition: 0,
            begin: None,
            end: None,
            unread: 0,
            remembered: Some(remembered.clone()),
            alarm: None,
        };
        let waiting = WaitingView {
            reader: String::new(),
            subject: String::new(),
            key: String::new(),
            topic: String::new(),
            partition: 0,
            offset: 0,
            since: chrono::DateTime::UNIX_EPOCH,
            reason: String::new(),
        };
        let alarm = Alarm {
            topic: String::new(),
            partition: 0,
            what: String::new(),
        };
        let letter = LetterId {
            consumer: String::new(),
            topic: String::new(),
            partition: 0,
            offset: 0,
        };
        let log = LogView {
            topic: String::new(),
            identity: None,
            checked: true,
            partitions: vec![partition.clone()],
        };
        let document = described();
        for (name, written) in [
            ("Checkpoint", json!(checkpoint)),
            ("Remembered", json!(remembered)),
            ("PartitionView", json!(partition)),
            ("LogView", json!(log)),
            ("WaitingView", json!(waiting)),
            ("Alarm", json!(alarm)),
            ("LetterId", json!(letter)),
            ("DeadLetterFilter", json!(DeadLetterFilter::default())),
            ("Progress", json!(Progress::default())),
            ("HealthReport", json!(Health::default().report().await)),
            ("ComponentHealth", json!(ComponentHealth::down("ill"))),
        ] {
            let members = |value: &Value| -> BTreeSet<String> {
                value.as_object().unwrap().keys().cloned().collect()
            };
            let described = &document["components"]["schemas"][name]["properties"];
            assert_eq!(members(described), members(&written), "{name}");
        }
    }

    #[test]
    fn each_route_is_described_with_who_may_and_none_twice() {
        let document = described();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = &operation["responses"];
                assert!(responses["401"].is_object(), "{method} {path}");
                assert!(responses["403"].is_object(), "{method} {path}");
                assert!(ids.insert(operation["operationId"].to_string()), "{path}");
            }
        }
        assert_eq!(ids.len(), 21);
    }
}
