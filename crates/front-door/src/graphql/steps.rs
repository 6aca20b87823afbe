//! A mutation with several fields at its root as several operations, carried out strictly one after the other (GraphQL, section
//! Mutation): a router asks other services for parts of the first field's answer when it has begun the second.

use std::sync::Arc;

use apollo_compiler::executable::{
    ExecutableDocument, InlineFragment, Operation, Selection, SelectionSet,
};
use apollo_compiler::{Name, Node};
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::bounded_answer::{Unread, whole, with_null};
use super::consistency;
use super::error::{Code, RequestError};
use super::inner::{Inner, Origin};
use super::operation_request::Ready;
use super::references::{spreads, variables_of};

/// One field at the root of a mutation, as a document of its own.
pub(super) struct Step {
    /// The field's key in the answer.
    pub(super) key: Arc<str>,
    /// One operation with what it uses.
    pub(super) document: ExecutableDocument,
}

/// The steps of a mutation, in the order of its fields. None of what has one field at its root, or is no mutation.
pub(super) fn split(document: &ExecutableDocument, operation: &Operation) -> Vec<Step> {
    if !operation.is_mutation() {
        return Vec::new();
    }
    let mut fields: Vec<(Name, Vec<Selection>)> = Vec::new();
    let mut add = |key: Name, selection: Selection| match fields
        .iter_mut()
        .find(|(known, _)| *known == key)
    {
        Some((_, selections)) => selections.push(selection),
        None => fields.push((key, vec![selection])),
    };
    each_field(document, &operation.selection_set, &mut add);
    if fields.len() < 2 {
        return Vec::new();
    }
    fields
        .into_iter()
        .map(|(key, selections)| Step {
            key: key.as_str().into(),
            document: alone(document, operation, selections),
        })
        .collect()
}

/// Gives each field of a set with the fragments that it stands in: their conditions go on to count.
fn each_field(
    document: &ExecutableDocument,
    set: &SelectionSet,
    give: &mut dyn FnMut(Name, Selection),
) {
    for selection in &set.selections {
        match selection {
            Selection::Field(field) => give(field.response_key().clone(), selection.clone()),
            Selection::InlineFragment(fragment) => {
                each_field(document, &fragment.selection_set, &mut |key, inside| {
                    let mut around = fragment.as_ref().clone();
                    around.selection_set.selections = vec![inside];
                    give(key, Selection::InlineFragment(Node::new(around)));
                });
            }
            Selection::FragmentSpread(spread) => {
                let Some(fragment) = spread.fragment_def(document) else {
                    continue;
                };
                each_field(document, &fragment.selection_set, &mut |key, inside| {
                    let mut selection_set = SelectionSet::new(fragment.selection_set.ty.clone());
                    selection_set.selections.push(inside);
                    let around = InlineFragment {
                        type_condition: Some(fragment.type_condition().clone()),
                        directives: spread.directives.clone(),
                        selection_set,
                    };
                    give(key, Selection::InlineFragment(Node::new(around)));
                });
            }
        }
    }
}

fn alone(
    document: &ExecutableDocument,
    operation: &Operation,
    selections: Vec<Selection>,
) -> ExecutableDocument {
    let mut operation = operation.clone();
    operation.selection_set.selections = selections;
    let mut fragments = std::collections::HashSet::new();
    spreads(document, &operation.selection_set, &mut fragments);
    let mut alone = ExecutableDocument::new();
    let mut used = std::collections::HashSet::new();
    variables_of(&operation.selection_set, &mut used);
    for (name, fragment) in &document.fragments {
        if fragments.contains(name) {
            variables_of(&fragment.selection_set, &mut used);
            alone.fragments.insert(name.clone(), fragment.clone());
        }
    }
    let used: std::collections::HashSet<String> = used.into_iter().map(str::to_owned).collect();
    operation
        .variables
        .retain(|variable| used.contains(variable.name.as_str()));
    alone.operations.insert(operation);
    alone
}

/// The answer of one step.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Vec<Value>,
    #[serde(default)]
    extensions: serde_json::Map<String, Value>,
}

/// Hands an operation on, as often as it has steps, and makes one answer of theirs, each of at most `most` bytes. Behind a step that
/// fails as a whole none is begun.
pub(super) async fn carry_out<I: Inner>(
    inner: &I,
    origin: &Origin,
    ready: &Ready,
    accept: &'static str,
    most: usize,
) -> Response<Body> {
    if ready.further.is_empty() && !origin.headers().contains_key(&consistency::HEADER) {
        let request = origin.request(ready.body.clone(), accept);
        return consistency::told(inner.answer(request).await, None, None, most).await;
    }
    let mut origin = origin.clone();
    let ignored = consistency::read(origin.headers_mut()).err();
    let brought = origin.headers().get(&consistency::HEADER).cloned();
    let answer = carry_out_all(inner, origin, ready, accept, most).await;
    consistency::told(answer, brought.as_ref(), ignored.as_ref(), most).await
}

async fn carry_out_all<I: Inner>(
    inner: &I,
    mut origin: Origin,
    ready: &Ready,
    accept: &'static str,
    most: usize,
) -> Response<Body> {
    if ready.further.is_empty() {
        return inner
            .answer(origin.request(ready.body.clone(), accept))
            .await;
    }
    let mut written = Vec::new();
    let mut joined = Joined::default();
    let mut head = None;
    let bodies = std::iter::once(&ready.body).chain(&ready.further);
    for (body, key) in bodies.zip(&ready.keys) {
        let answer = inner.answer(origin.request(body.clone(), accept)).await;
        let (parts, body) = answer.into_parts();
        for one in parts.headers.get_all(&consistency::HEADER) {
            written.push(one.clone());
            // The next step sees what this one wrote.
            origin
                .headers_mut()
                .append(consistency::HEADER, one.clone());
        }
        let bytes = match whole(body, most).await {
            Ok(bytes) => Some(bytes),
            Err(Unread::TooLarge(refused)) => Some(with_null(&refused)),
            Err(Unread::BrokenOff) => None,
        };
        let is_first = head.is_none();
        let goes_on = bytes
            .as_deref()
            .is_some_and(|bytes| joined.take(bytes, key));
        if is_first && !goes_on && joined.is_refusal {
            // Nothing was carried out at all: it says so best itself.
            return Response::from_parts(parts, Body::from(bytes.unwrap_or_default()));
        }
        if bytes.is_none() {
            joined.break_off(key);
        }
        head = Some(parts);
        if !goes_on {
            break;
        }
    }
    let mut response = Response::new(Body::from(joined.written()));
    if let Some(head) = head {
        *response.headers_mut() = head.headers;
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(&consistency::HEADER);
    for one in written {
        response.headers_mut().append(consistency::HEADER, one);
    }
    response
}

/// Answers of steps as one.
#[derive(Default)]
struct Joined {
    /// Members of `data`, without the braces around them.
    members: Vec<String>,
    errors: Vec<Value>,
    extensions: serde_json::Map<String, Value>,
    is_null: bool,
    /// Whether the last step was not carried out at all.
    is_refusal: bool,
}

impl Joined {
    /// Takes the answer of a step; answers whether the next may begin.
    fn take(&mut self, bytes: &[u8], key: &str) -> bool {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(bytes) else {
            self.break_off(key);
            return false;
        };
        self.is_refusal = answer.data.is_none();
        self.errors
            .extend(answer.errors.into_iter().map(|mut error| {
                // Of several steps a client would not know which.
                if let Some(error) = error.as_object_mut() {
                    error
                        .entry("path")
                        .or_insert_with(|| Value::from(vec![Value::from(key)]));
                }
                error
            }));
        self.extensions.extend(answer.extensions);
        let members = answer
            .data
            .and_then(|data| data.get().trim().strip_prefix('{')?.strip_suffix('}'));
        match members {
            Some(members) => {
                if !members.trim().is_empty() {
                    self.members.push(members.to_owned());
                }
                true
            }
            None => {
                self.is_null = true;
                false
            }
        }
    }

    fn break_off(&mut self, key: &str) {
        self.is_null = true;
        let error: super::error::Refused = RequestError::new(
            StatusCode::BAD_GATEWAY,
            Code::Unavailable,
            "answer",
            "the answer broke off: whether this field was carried out is not known",
        )
        .into();
        if let Value::Array(errors) = error.errors() {
            self.errors.extend(errors.into_iter().map(|mut error| {
                error["path"] = Value::from(vec![Value::from(key)]);
                error
            }));
        }
    }

    fn written(self) -> Bytes {
        let data = if self.is_null {
            "null".to_owned()
        } else {
            format!("{{{}}}", self.members.join(","))
        };
        let mut text = format!("{{\"data\":{data}");
        if !self.errors.is_empty() {
            text.push_str(",\"errors\":");
            text.push_str(&Value::from(self.errors).to_string());
        }
        if !self.extensions.is_empty() {
            text.push_str(",\"extensions\":");
            text.push_str(&Value::from(self.extensions).to_string());
        }
        text.push('}');
        text.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::schema::GraphSchema;
    use super::*;

    fn steps(document: &str) -> Vec<(String, String)> {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        let operation = document.operations.iter().next().unwrap();
        split(&document, operation)
            .into_iter()
            .map(|step| {
                let text = step.document.serialize().no_indent().to_string();
                ExecutableDocument::parse_and_validate(schema.valid(), &text, "step").unwrap();
                (step.key.to_string(), text)
            })
            .collect()
    }

    #[test]
    fn each_field_at_the_root_is_a_step_with_what_it_uses() {
        let steps = steps(
            "mutation M($a:ID!,$b:ID!,$c:Boolean!){a:cancelOrder(id:$a){...p} ...two b:cancelOrder(id:$b){order{total}}} fragment two on Mutation{b:cancelOrder(id:$b){order{id}} ...@skip(if:$c){c:eraseCustomer(id:$a){__typename}}} fragment p on OrderPayload{order{id}}",
        );
        let keys: Vec<&str> = steps.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert!(steps[0].1.contains("fragment p") && !steps[0].1.contains("$b"));
        assert_eq!(steps[1].1.matches("cancelOrder(id: $b)").count(), 2);
        assert!(!steps[1].1.contains("$a") && !steps[1].1.contains("fragment p"));
        assert!(steps[2].1.contains("@skip(if: $c)") && steps[2].1.contains("$a: ID!"));
    }

    #[test]
    fn what_has_one_field_at_its_root_or_is_no_mutation_has_no_steps() {
        for document in [
            r#"mutation{cancelOrder(id:"1"){order{id}} cancelOrder(id:"1"){order{total}}}"#,
            "{a:__typename b:__typename}",
        ] {
            assert!(steps(document).is_empty(), "{document}");
        }
    }

    #[test]
    fn answers_become_one_and_none_is_begun_behind_one_that_failed() {
        let mut joined = Joined::default();
        assert!(joined.take(br#"{"data":{"a":{"x":1}},"extensions":{"k":1}}"#, "a"));
        assert!(joined.take(br#"{"data":{}}"#, "b"));
        assert!(joined.take(
            br#"{"data":{"c":null},"errors":[{"message":"m","path":["c"]}]}"#,
            "c"
        ));
        assert_eq!(
            serde_json::from_slice::<Value>(&joined.written()).unwrap(),
            serde_json::json!({"data": {"a": {"x": 1}, "c": null}, "errors": [{"message": "m", "path": ["c"]}], "extensions": {"k": 1}})
        );
        for failed in [
            &br#"{"data":null,"errors":[{"message":"m"}]}"#[..],
            br#"{"errors":[{"message":"m"}]}"#,
            b"<html>",
        ] {
            let mut joined = Joined::default();
            joined.take(br#"{"data":{"a":1}}"#, "a");
            assert!(!joined.take(failed, "b"));
            let answer: Value = serde_json::from_slice(&joined.written()).unwrap();
            assert_eq!(answer["data"], Value::Null);
            assert_eq!(answer["errors"][0]["path"], serde_json::json!(["b"]));
        }
    }
}
