//! Orders the members of a response as the document orders its fields (GraphQL, section Serialized Map Ordering).
//! async-graphql orders them by when each became ready.

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Value};

/// The keys of an object, each with the keys within it. Fields of several types under one key are one.
#[derive(Debug, Default)]
pub(super) struct MemberOrder(IndexMap<Name, MemberOrder>);

impl MemberOrder {
    /// The order of the operation of this name, or of the first one. The document is validated: its fragments have no
    /// cycles, and its depth has a limit.
    pub(super) fn of(document: &ExecutableDocument, operation: Option<&str>) -> Self {
        let mut selected = Self::default();
        let chosen = document
            .operations
            .iter()
            .find(|(name, _)| operation.is_none() || name.map(|name| name.as_str()) == operation);
        if let Some((_, operation)) = chosen {
            selected.add(document, &operation.node.selection_set.node);
        }
        selected
    }

    fn add(&mut self, document: &ExecutableDocument, set: &SelectionSet) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    let key = field.node.response_key().node.clone();
                    let below = self.0.entry(key).or_default();
                    below.add(document, &field.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    let fragment = document.fragments.get(&spread.node.fragment_name.node);
                    if let Some(fragment) = fragment {
                        self.add(document, &fragment.node.selection_set.node);
                    }
                }
                Selection::InlineFragment(fragment) => {
                    self.add(document, &fragment.node.selection_set.node);
                }
            }
        }
    }

    /// Puts the members of the data in order.
    pub(super) fn arrange(&self, value: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        match value {
            Value::List(items) => items.iter_mut().for_each(|item| self.arrange(item)),
            Value::Object(members) => {
                let place = |name: &Name| self.0.get_index_of(name).unwrap_or(usize::MAX);
                if !members.keys().map(place).is_sorted() {
                    members.sort_by(|one, _, other, _| place(one).cmp(&place(other)));
                }
                for (name, member) in members {
                    if let Some(below) = self.0.get(name) {
                        below.arrange(member);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{EmptyMutation, Object, Request, Schema, Subscription};
    use futures::{Stream, StreamExt};

    use crate::graphql::ErrorCodes;

    /// An object with fields that become ready at different times.
    struct Node;

    #[Object]
    impl Node {
        async fn id(&self) -> i32 {
            1
        }
        async fn late(&self) -> i32 {
            tokio::task::yield_now().await;
            2
        }
        async fn node(&self) -> Node {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            Node
        }
        async fn nodes(&self) -> Vec<Node> {
            tokio::task::yield_now().await;
            vec![Node, Node]
        }
    }

    struct Query;

    #[Object]
    impl Query {
        async fn node(&self) -> Node {
            tokio::task::yield_now().await;
            Node
        }
    }

    struct Events;

    #[Subscription]
    impl Events {
        async fn nodes(&self) -> impl Stream<Item = Node> {
            futures::stream::iter([Node, Node])
        }
    }

    fn schema() -> Schema<Query, EmptyMutation, Events> {
        Schema::build(Query, EmptyMutation, Events)
            .extension(ErrorCodes)
            .finish()
    }

    #[tokio::test]
    async fn members_stand_in_the_order_of_the_document() {
        for (document, data) in [
            ("{a:node{id} b:__typename}", r#"{"a":{"id":1},"b":"Query"}"#),
            (
                "{node{node{late id} late nodes{late __typename id} id}}",
                r#"{"node":{"node":{"late":2,"id":1},"late":2,"nodes":[{"late":2,"__typename":"Node","id":1},{"late":2,"__typename":"Node","id":1}],"id":1}}"#,
            ),
            (
                "{...r b:__typename} fragment r on Query{node{...{late} ...n late}} fragment n on Node{id node{id}}",
                r#"{"node":{"late":2,"id":1,"node":{"id":1}},"b":"Query"}"#,
            ),
            (
                "{node{late} a:__typename node{id late}}",
                r#"{"node":{"late":2,"id":1},"a":"Query"}"#,
            ),
        ] {
            let response = schema().execute(document).await;
            assert!(response.errors.is_empty(), "{:?}", response.errors);
            assert_eq!(serde_json::to_string(&response.data).unwrap(), data);
        }
    }

    #[tokio::test]
    async fn the_operation_that_is_carried_out_says_the_order() {
        let document = "query A{b:__typename node{id late}} query B{node{late id} b:__typename}";
        for (name, data) in [
            ("A", r#"{"b":"Query","node":{"id":1,"late":2}}"#),
            ("B", r#"{"node":{"late":2,"id":1},"b":"Query"}"#),
        ] {
            let request = Request::new(document).operation_name(name);
            let response = schema().execute(request).await;
            assert_eq!(serde_json::to_string(&response.data).unwrap(), data);
        }
    }

    #[tokio::test]
    async fn members_of_every_event_stand_in_the_order_of_the_document() {
        let mut events = schema().execute_stream("subscription{nodes{late id}}");
        let mut count = 0;
        while let Some(event) = events.next().await {
            let data = serde_json::to_string(&event.data).unwrap();
            assert_eq!(data, r#"{"nodes":{"late":2,"id":1}}"#);
            count += 1;
        }
        assert_eq!(count, 2);
    }
}
