//! Checks a request and prepares it for forwarding.
//!
//! The check of a large request is charged to its client and runs on another thread, so that other clients do not wait.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::call::Call;
use super::chosen_operation::Chosen;
use super::endpoint::GraphQl;
use super::error::{Code, Refused, RequestError};
use super::operation_request::{Ready, in_steps, written};
use super::prepared_operation::Kind;
use super::variables::{Members, coerced};
use crate::http::admission::{Client, Share, TOO_FAST, cost_of_bytes, whole_seconds};
use crate::http::aside::NotDone;

/// A body of this many bytes or more is parsed on another thread.
const LARGE: usize = 32 * 1024;
/// The answer to a request may have this many fields without an extra charge.
const FIELDS_FOR_NOTHING: u64 = 2_000;
/// This many fields beyond that cost as much as one request, even if the document is known: they must be resolved.
const FIELDS_OF_A_REQUEST: u64 = 50;

/// The document that a request asks for.
struct Asked {
    document: Arc<str>,
    /// Whether the request only named the document.
    is_named: bool,
    takes_long: bool,
}

impl GraphQl {
    /// Parses a request from JSON. A large one is charged to its client and parsed on another thread.
    ///
    /// # Errors
    /// When it is not a request, nests too deep, or exceeds the client's share.
    pub(super) async fn call(&self, body: &Bytes, share: &Share) -> Result<Call, RequestError> {
        pay(share, cost_of_bytes(body.len()))?;
        let depth = self.json_depth;
        if body.len() < LARGE {
            return Call::from_json(body, depth);
        }
        let body = body.clone();
        let read = move || Call::from_json(&body, depth);
        self.aside
            .run(share.client(), read)
            .await
            .map_err(not_done)?
    }

    /// Checks a request and converts it into the form in which it is forwarded. `body` is the text of the request. A
    /// long check is charged to its client and runs on another thread.
    ///
    /// # Errors
    /// When the request must not be executed, or exceeds the client's share.
    pub(super) async fn ready(
        self: &Arc<Self>,
        call: Call,
        body: Option<Bytes>,
        is_get: bool,
        share: &Share,
    ) -> Result<Ready, Refused> {
        let mut name = self.documents.kept_name(call.operation_name.as_deref());
        let ready = match self.asked(call, share) {
            Ok((asked, call)) => {
                let is_large = body.as_ref().is_some_and(|body| body.len() >= LARGE);
                if asked.takes_long || is_large {
                    let (this, paying) = (Arc::clone(self), share.clone());
                    let work = move || {
                        let ready = this.checked(asked, &call, body, is_get, &mut name, &paying);
                        ready.map_err(|refused| refused.of_operation(name))
                    };
                    return self
                        .aside
                        .run(share.client(), work)
                        .await
                        .map_err(|error| Refused::from(not_done(error)))?;
                }
                self.checked(asked, &call, body, is_get, &mut name, share)
            }
            Err(refused) => Err(refused),
        };
        ready.map_err(|refused| refused.of_operation(name))
    }

    /// The document that is asked for. An unknown one is scanned and charged to its client.
    fn asked(&self, mut call: Call, share: &Share) -> Result<(Asked, Call), Refused> {
        let is_named = call.query.is_none();
        let document = self.persisted.document(&mut call)?;
        let takes_long = match self.documents.weight(&document)? {
            None => false,
            Some(weight) => {
                pay(share, weight.cost())?;
                weight.takes_long()
            }
        };
        let asked = Asked {
            document,
            is_named,
            takes_long,
        };
        Ok((asked, call))
    }

    fn checked(
        &self,
        asked: Asked,
        call: &Call,
        body: Option<Bytes>,
        is_get: bool,
        name: &mut Option<String>,
        share: &Share,
    ) -> Result<Ready, Refused> {
        let Asked {
            document, is_named, ..
        } = asked;
        let operation = self
            .documents
            .operation(&document, call.operation_name.as_deref())?;
        name.clone_from(&operation.sent_name);
        if is_get && operation.kind == Kind::Mutation {
            return Err(RequestError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::BadUserInput,
                "mutation_by_get",
                "a mutation changes something: send it with POST",
            )
            .into());
        }
        let variables = Members::of(call.variables.as_deref());
        self.check_cost(&operation, &variables, share)?;
        let coerced = match self.documents.schema() {
            Some(schema) => coerced(schema, &operation.variables, &variables)?,
            None => None,
        };
        let sent_variables = coerced
            .as_deref()
            .or(call.variables.as_deref().map(RawValue::get));
        if !operation.steps.is_empty() {
            return Ok(in_steps(&operation, &variables, sent_variables));
        }
        let rewritten = operation
            .without_absent(|name| variables.get(name).is_some())
            .or_else(|| operation.rewritten.clone());
        if rewritten.is_none()
            && coerced.is_none()
            && !is_named
            && call.document_id.is_none()
            && let Some(body) = body
        {
            return Ok(Ready::new(operation, body));
        }
        let body = written(
            rewritten.as_deref().unwrap_or(&document),
            operation.sent_name.as_deref(),
            sent_variables,
        );
        Ok(Ready::new(operation, body))
    }

    fn check_cost(
        &self,
        operation: &Chosen,
        variables: &Members<'_>,
        share: &Share,
    ) -> Result<(), RequestError> {
        let Some(model) = &operation.cost else {
            return Ok(());
        };
        let cost = model.fixed().unwrap_or_else(|| model.with(variables));
        let limit = self.documents.limits().cost;
        if cost <= limit {
            // A gateway has one address for all its clients and has already limited each of them.
            let is_gateway = self.serves_gateways && matches!(share.client(), Client::Address(_));
            return match is_gateway {
                true => Ok(()),
                false => pay(share, cost_of_fields(cost)),
            };
        }
        Err(RequestError::too_expensive(
            cost,
            limit,
            format!(
                "the answer could have {cost} fields; {limit} are given: ask for smaller pages, with `first`, or for less of each"
            ),
        ))
    }
}

/// The cost of an answer in addition to its request, in requests.
fn cost_of_fields(fields: u64) -> u32 {
    let more = fields.saturating_sub(FIELDS_FOR_NOTHING) / FIELDS_OF_A_REQUEST;
    u32::try_from(more).unwrap_or(u32::MAX)
}

/// Charges the client for the work of this many requests.
fn pay(share: &Share, requests: u32) -> Result<(), RequestError> {
    share
        .pay(requests)
        .map_err(|wait| RequestError::rate_limited(whole_seconds(wait), TOO_FAST))
}

fn not_done(error: NotDone) -> RequestError {
    let message = error.to_string();
    match error {
        NotDone::TooMuch => RequestError::rate_limited(1, message),
        NotDone::Failed => RequestError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unavailable,
            "internal",
            message,
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::endpoint::GraphQlRules;
    use super::super::schema::GraphSchema;
    use super::*;
    use crate::http::admission::{Counter, Most, Rate};
    use crate::runtime::Tasks;
    use crate::settings::FrontDoorSettings;

    fn graphql() -> Arc<GraphQl> {
        with(GraphQlRules::default())
    }

    fn with(rules: GraphQlRules) -> Arc<GraphQl> {
        let settings = FrontDoorSettings::default();
        let subscriptions = Counter::new("test", Most::subscriptions(&settings));
        let time = settings.body_timeout();
        Arc::new(GraphQl::new(
            rules,
            time,
            1_000,
            subscriptions,
            Tasks::Shared,
        ))
    }

    /// Makes shares of a front door that accepts this many requests a second from each client.
    fn shares(rate_limit: u32) -> impl Fn(&str) -> Share {
        let rate = Arc::new(Rate::new(&FrontDoorSettings {
            rate_limit: rate_limit.try_into().unwrap(),
            ..FrontDoorSettings::default()
        }));
        move |address| Share::new(&rate, Client::of(address.parse().unwrap()))
    }

    async fn ask(graphql: &Arc<GraphQl>, query: String, share: &Share) -> Result<Ready, Code> {
        let call = Call {
            query: Some(query),
            ..Call::default()
        };
        let ready = graphql.ready(call, None, false, share).await;
        ready.map_err(|refused| refused.first().unwrap().code())
    }

    fn fields(first: usize, count: usize) -> String {
        format!("{{a{first} {}}}", "a ".repeat(count))
    }

    #[tokio::test]
    async fn large_documents_that_are_not_known_are_paid_for_by_their_tokens() {
        let (graphql, share) = (graphql(), shares(3_000));
        let (one, other) = (share("10.0.0.1"), share("10.0.0.2"));
        // They cost 250 requests each: a dozen, plus what the rate limit gives back meanwhile.
        let mut refused = None;
        for number in 0..1_000 {
            if let Err(code) = ask(&graphql, fields(number, 1_500), &one).await {
                refused = Some((number, code));
                break;
            }
        }
        let (count, code) = refused.unwrap();
        assert_eq!(code, Code::RateLimited);
        assert!(count >= 11, "{count}");
        assert!(ask(&graphql, fields(0, 1_500), &other).await.is_ok());
        // Small and known documents cost nothing in addition to their requests.
        for number in 0..1_000 {
            assert!(ask(&graphql, fields(number, 100), &one).await.is_ok());
            assert!(ask(&graphql, fields(0, 1_500), &one).await.is_ok());
        }
    }

    #[tokio::test]
    async fn small_documents_are_paid_for_by_the_answers_that_they_may_have_though_they_are_known()
    {
        let rules = |serves_gateways| GraphQlRules {
            schema: Some(
                GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql"))
                    .unwrap(),
            ),
            serves_gateways,
            ..GraphQlRules::default()
        };
        let (graphql, shares) = (with(rules(false)), shares(3_000));
        let (one, other) = (shares("10.0.0.1"), shares("10.0.0.2"));
        // It has 30,000 fields, which cost 560 requests.
        let dear = "{orders(first:100){nodes{customer{orders(first:100){nodes{a:id b:id c:id}}}}}}";
        let ask_often = async |graphql: &Arc<GraphQl>, query: &str, share: &Share| {
            for number in 0..1_000 {
                if let Err(code) = ask(graphql, query.to_owned(), share).await {
                    return Some((number, code));
                }
            }
            None
        };
        let (count, code) = ask_often(&graphql, dear, &one).await.unwrap();
        assert_eq!(code, Code::RateLimited);
        assert!(count >= 5, "{count}");
        assert!(ask(&graphql, dear.to_owned(), &other).await.is_ok());
        // A usual page costs nothing in addition to its request.
        let page = "{orders(first:100){nodes{id revision total}}}";
        assert_eq!(ask_often(&graphql, page, &one).await, None);
        // Behind a gateway only the subjects of its clients are charged.
        let service = with(rules(true));
        assert_eq!(ask_often(&service, dear, &one).await, None);
        let subject = Share::new(
            &Arc::new(Rate::new(&FrontDoorSettings {
                rate_limit: 3_000_u32.try_into().unwrap(),
                ..FrontDoorSettings::default()
            })),
            Client::named("7"),
        );
        let refused = ask_often(&service, dear, &subject).await;
        assert_eq!(refused.map(|(_, code)| code), Some(Code::RateLimited));
    }

    #[tokio::test]
    async fn what_a_variable_is_by_default_is_told_to_what_decides_by_it() {
        let graphql = with(GraphQlRules {
            schema: Some(
                GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql"))
                    .unwrap(),
            ),
            ..GraphQlRules::default()
        });
        let share = shares(3_000)("10.0.0.1");
        for (document, told) in [
            (
                r#"mutation($b:Boolean=true){eraseCustomer(id:"1")@skip(if:$b){__typename}}"#,
                r#""variables":{"b":true}"#,
            ),
            (
                r#"mutation($b:Boolean=true){a:eraseCustomer(id:"1")@skip(if:$b){__typename} b:eraseCustomer(id:"2"){__typename}}"#,
                r#""variables":{"b":true}"#,
            ),
            (
                "subscription($b:Boolean!=false){orderUpdated{order{id @include(if:$b)}}}",
                r#""variables":{"b":false}"#,
            ),
        ] {
            let ready = ask(&graphql, document.to_owned(), &share).await.unwrap();
            let body = String::from_utf8(ready.body.to_vec()).unwrap();
            assert!(body.contains(told), "{body}");
        }
        let absent = "query($n:Int){customers(first:$n){nodes{id}}}".to_owned();
        let ready = ask(&graphql, absent, &share).await.unwrap();
        let body = String::from_utf8(ready.body.to_vec()).unwrap();
        assert!(!body.contains("variables"), "{body}");
    }

    #[tokio::test]
    async fn what_is_larger_than_what_is_taken_is_refused_before_it_is_paid_for_or_parsed() {
        let (graphql, share) = (graphql(), shares(3));
        let one = share("10.0.0.1");
        for _ in 0..100 {
            for query in [fields(0, 100_000), "{a".repeat(4_000)] {
                let refused = ask(&graphql, query, &one).await;
                assert_eq!(refused.map(|_| ()), Err(Code::BadUserInput));
            }
        }
    }
}
