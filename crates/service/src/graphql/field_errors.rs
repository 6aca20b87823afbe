//! Failed fields, as the specification has them (GraphQL, "Handling Field Errors"): a failed field is null, and an
//! error has the path to it. If the field may not be null, its parent is null instead.
//!
//! async-graphql leaves such fields out of their object, whatever their type, and the paths of its errors lack the
//! index of an entity. So a failed field is marked in the response while the response is built. The marks are read when
//! it is complete.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_graphql::{PathSegment, Response, ServerError, ServerResult, Value};
use axum::body::Bytes;

/// The failed fields of one response.
#[derive(Debug, Default)]
pub(super) struct FieldErrors {
    any: AtomicBool,
    failed: Mutex<Vec<Option<Failed>>>,
}

#[derive(Debug)]
enum Failed {
    /// The field itself.
    Itself(ServerError),
    /// A null where none is allowed, somewhere in the field's value. Its marks are not read yet.
    Within(Value),
}

impl FieldErrors {
    /// The completed value of a field of this type. It never fails; a failure becomes a mark.
    pub(super) fn completed(
        &self,
        kind: &str,
        resolved: ServerResult<Option<Value>>,
    ) -> Option<Value> {
        match resolved {
            Err(error) => Some(self.mark(kind, Failed::Itself(error))),
            Ok(Some(mut value)) if self.any.load(Ordering::Acquire) => {
                let is_null = self.has_forbidden_null(&mut value, kind);
                Some(if is_null {
                    self.mark(kind, Failed::Within(value))
                } else {
                    value
                })
            }
            Ok(value) => value,
        }
    }

    fn mark(&self, kind: &str, failed: Failed) -> Value {
        self.any.store(true, Ordering::Release);
        let mut all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = Mark {
            at: all.len(),
            may_be_null: may_be_null(kind),
        };
        all.push(Some(failed));
        mark.write()
    }

    /// Whether the value contains a null that is not allowed. It turns failed items of a list into null if the item
    /// type is nullable, because async-graphql does not do so for entities.
    fn has_forbidden_null(&self, value: &mut Value, kind: &str) -> bool {
        match value {
            Value::Object(members) => members.values().any(is_forbidden),
            Value::List(items) => {
                let kind = kind_of_items(kind);
                let mut found = false;
                for item in items {
                    let has_null = match &*item {
                        Value::Object(members) => members.values().any(is_forbidden),
                        other => is_forbidden(other),
                    };
                    if has_null && may_be_null(kind) {
                        *item = self.mark(kind, Failed::Within(mem::take(item)));
                    } else {
                        found |= has_null;
                    }
                }
                found
            }
            _ => false,
        }
    }

    /// Replaces the marks by null, and adds the errors with their paths.
    pub(super) fn finish(&self, response: &mut Response) {
        if !self.any.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = mem::take(&mut *all);
        let is_null = match &response.data {
            Value::Object(members) => members.values().any(is_forbidden),
            other => is_forbidden(other),
        };
        let mut reading = Reading {
            failed: &mut failed,
            path: Vec::new(),
            errors: &mut response.errors,
        };
        reading.read(&mut response.data);
        if is_null {
            response.data = Value::Null;
        }
        // Two equal fields are one in the response, so a failure of the second one has no place of its own.
        response
            .errors
            .extend(failed.into_iter().filter_map(|one| match one? {
                Failed::Itself(error) => Some(error),
                Failed::Within(_) => None,
            }));
    }
}

/// Stands in a response for a failed field. No field of ours has bytes as its value.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: usize,
    may_be_null: bool,
}

impl Mark {
    fn write(self) -> Value {
        let mut bytes = self.at.to_le_bytes().to_vec();
        bytes.push(u8::from(self.may_be_null));
        Value::Binary(Bytes::from(bytes))
    }

    fn read(value: &Value) -> Option<Self> {
        let Value::Binary(bytes) = value else {
            return None;
        };
        let (may_be_null, at) = bytes.split_last()?;
        Some(Self {
            at: usize::from_le_bytes(at.try_into().ok()?),
            may_be_null: *may_be_null == 1,
        })
    }
}

fn is_forbidden(value: &Value) -> bool {
    Mark::read(value).is_some_and(|mark| !mark.may_be_null)
}

fn may_be_null(kind: &str) -> bool {
    !kind.ends_with('!')
}

/// The item type of a list type: `Order!` for `[Order!]!`.
fn kind_of_items(kind: &str) -> &str {
    let list = kind.strip_suffix('!').unwrap_or(kind);
    list.strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'))
        .unwrap_or(list)
}

struct Reading<'a> {
    failed: &'a mut [Option<Failed>],
    path: Vec<PathSegment>,
    errors: &'a mut Vec<ServerError>,
}

impl Reading<'_> {
    /// The recursion is as deep as the operation, which has a limit.
    fn read(&mut self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    self.step(PathSegment::Field(name.to_string()), member);
                }
            }
            Value::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.step(PathSegment::Index(at), item);
                }
            }
            Value::Binary(_) => {
                let failed = Mark::read(value)
                    .and_then(|mark| self.failed.get_mut(mark.at))
                    .and_then(Option::take);
                match failed {
                    Some(Failed::Itself(mut error)) => {
                        error.path.clone_from(&self.path);
                        self.errors.push(error);
                    }
                    Some(Failed::Within(mut inside)) => self.read(&mut inside),
                    None => return,
                }
                *value = Value::Null;
            }
            _ => {}
        }
    }

    fn step(&mut self, segment: PathSegment, value: &mut Value) {
        self.path.push(segment);
        self.read(value);
        self.path.pop();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{EmptyMutation, Object, Result, Schema, Subscription};
    use futures::{Stream, StreamExt};
    use serde_json::{Value as Json, json};

    use crate::graphql::{ApiError, ErrorCodes};

    /// An object with some fields that fail.
    struct Node(i32);

    fn away<T>() -> Result<T> {
        Err(ApiError::unavailable("away").into())
    }

    #[Object]
    impl Node {
        async fn id(&self) -> i32 {
            self.0
        }
        async fn late(&self) -> i32 {
            tokio::task::yield_now().await;
            self.0
        }
        async fn maybe(&self) -> Result<Option<i32>> {
            if self.0 == 2 { away() } else { Ok(Some(1)) }
        }
        async fn always(&self) -> Result<i32> {
            if self.0 == 2 { away() } else { Ok(1) }
        }
        async fn node(&self) -> Option<Node> {
            Some(Node(self.0))
        }
        async fn sure(&self) -> Node {
            Node(self.0)
        }
        async fn nodes(&self) -> Vec<Node> {
            vec![Node(1), Node(2), Node(3)]
        }
        async fn sparse(&self) -> Vec<Option<Node>> {
            vec![Some(Node(1)), Some(Node(2)), None]
        }
        async fn list(&self) -> Option<Vec<Node>> {
            Some(vec![Node(1), Node(2)])
        }
    }

    struct Query;

    #[Object]
    impl Query {
        async fn one(&self) -> Option<Node> {
            Some(Node(1))
        }
        async fn two(&self) -> Option<Node> {
            Some(Node(2))
        }
        async fn sure(&self) -> Node {
            Node(2)
        }
        async fn fails(&self) -> Result<Option<i32>> {
            away()
        }
    }

    struct Events;

    #[Subscription]
    impl Events {
        async fn nodes(&self) -> impl Stream<Item = Node> {
            futures::stream::iter([Node(1), Node(2), Node(1)])
        }
    }

    fn schema() -> Schema<Query, EmptyMutation, Events> {
        Schema::build(Query, EmptyMutation, Events)
            .extension(ErrorCodes)
            .finish()
    }

    async fn answer(query: &str) -> Json {
        serde_json::to_value(schema().execute(query).await).unwrap()
    }

    /// Checks the data, and the paths of the errors.
    async fn check(query: &str, data: Json, paths: &[Json]) {
        let answer = answer(query).await;
        assert_eq!(answer["data"], data, "{query}: {answer}");
        let none = Vec::new();
        let errors = answer["errors"].as_array().unwrap_or(&none);
        let found: Vec<&Json> = errors.iter().map(|error| &error["path"]).collect();
        assert_eq!(found, paths.iter().collect::<Vec<_>>(), "{query}");
        for error in errors {
            assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{error}");
        }
    }

    #[tokio::test]
    async fn a_field_that_fails_and_may_be_null_is_null_at_its_place() {
        check(
            "{two{id a:maybe} fails one{maybe}}",
            json!({"two": {"id": 2, "a": null}, "fails": null, "one": {"maybe": 1}}),
            &[json!(["two", "a"]), json!(["fails"])],
        )
        .await;
        check(
            "{two{maybe}}",
            json!({"two": {"maybe": null}}),
            &[json!(["two", "maybe"])],
        )
        .await;
    }

    #[tokio::test]
    async fn where_null_may_not_be_what_it_belongs_to_is_null() {
        check(
            "{two{id always} one{id}}",
            json!({"two": null, "one": {"id": 1}}),
            &[json!(["two", "always"])],
        )
        .await;
        check(
            "{two{id node{id sure{sure{always}}}}}",
            json!({"two": {"id": 2, "node": null}}),
            &[json!(["two", "node", "sure", "sure", "always"])],
        )
        .await;
        check(
            "{sure{sure{always}} one{id}}",
            Json::Null,
            &[json!(["sure", "sure", "always"])],
        )
        .await;
    }

    #[tokio::test]
    async fn of_a_list_an_item_is_null_or_all_of_it() {
        check(
            "{one{sparse{id always}}}",
            json!({"one": {"sparse": [{"id": 1, "always": 1}, null, null]}}),
            &[json!(["one", "sparse", 1, "always"])],
        )
        .await;
        check(
            "{one{id list{always}}}",
            json!({"one": {"id": 1, "list": null}}),
            &[json!(["one", "list", 1, "always"])],
        )
        .await;
        check(
            "{one{nodes{always}}}",
            json!({"one": null}),
            &[json!(["one", "nodes", 1, "always"])],
        )
        .await;
        check(
            "{one{nodes{maybe}}}",
            json!({"one": {"nodes": [{"maybe": 1}, {"maybe": null}, {"maybe": 1}]}}),
            &[json!(["one", "nodes", 1, "maybe"])],
        )
        .await;
    }

    #[tokio::test]
    async fn each_event_has_the_errors_of_its_own() {
        let mut events = schema().execute_stream("subscription{nodes{id maybe}}");
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push(serde_json::to_value(event).unwrap());
        }
        assert_eq!(seen[0], json!({"data": {"nodes": {"id": 1, "maybe": 1}}}));
        assert_eq!(seen[1]["data"], json!({"nodes": {"id": 2, "maybe": null}}));
        assert_eq!(seen[1]["errors"][0]["path"], json!(["nodes", "maybe"]));
        assert_eq!(seen[2], seen[0]);
    }
}
