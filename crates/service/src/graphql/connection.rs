//! Relay connections: pages of a list, addressed by opaque cursors.
//!
//! async-graphql provides the types and marks them `@shareable`, so that both subgraphs may define `PageInfo`.

use std::fmt;

use async_graphql::OutputType;
pub use async_graphql::connection::PageInfo;
use async_graphql::connection::{CursorType, Edge};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The largest page size.
pub const MAX_PAGE: i32 = 100;

/// A page of nodes: the GraphQL type `<Node>Connection { edges { cursor node } nodes pageInfo }`.
pub type Connection<K, N> = async_graphql::connection::Connection<Cursor<K>, N>;

/// A position in a list: the list's sort key, opaque to clients (base64url of its JSON).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<K>(pub K);

/// A cursor that this service did not issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct InvalidCursor;

impl<K: Serialize> Cursor<K> {
    /// The cursor as clients see it.
    pub fn encode(&self) -> String {
        // Keys are plain data (texts, numbers, tuples of them), so they always have a JSON form.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

impl<K: DeserializeOwned> Cursor<K> {
    /// Reads a cursor that a client sent.
    ///
    /// # Errors
    ///
    /// [`InvalidCursor`] if the text is not a cursor of this kind of list.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        serde_json::from_slice(&json)
            .map(Self)
            .map_err(|_| InvalidCursor)
    }
}

impl<K: Serialize> fmt::Display for Cursor<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.encode())
    }
}

impl<K: Serialize + DeserializeOwned + Send + Sync> CursorType for Cursor<K> {
    type Error = InvalidCursor;

    fn decode_cursor(text: &str) -> Result<Self, Self::Error> {
        Self::decode(text)
    }

    fn encode_cursor(&self) -> String {
        self.encode()
    }
}

/// The page that a client requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<K> {
    /// The size of the page, 1 to [`MAX_PAGE`].
    pub first: usize,
    /// The page begins after this key.
    pub after: Option<K>,
}

impl<K: DeserializeOwned> PageRequest<K> {
    /// Checks the arguments `first` and `after` of a connection field.
    ///
    /// # Errors
    ///
    /// `BAD_USER_INPUT` with the field `first` or `after`.
    pub fn new(first: i32, after: Option<&str>) -> Result<Self, ApiError> {
        let size = usize::try_from(first)
            .ok()
            .filter(|_| (1..=MAX_PAGE).contains(&first))
            .ok_or_else(|| {
                ApiError::bad_user_input(
                    "first",
                    format!("`first` is {first}; it must be from 1 to {MAX_PAGE}"),
                )
            })?;
        let after = after
            .map(Cursor::decode)
            .transpose()
            .map_err(|InvalidCursor| {
                ApiError::bad_user_input(
                    "after",
                    "`after` is no cursor of this list; take one from `pageInfo.endCursor` or `edges.cursor`",
                )
            })?
            .map(|Cursor(key)| key);
        Ok(Self { first: size, after })
    }
}

impl<K> PageRequest<K> {
    /// How many entries to fetch: one more than the page size, to learn whether there is a next page.
    pub fn fetch_limit(&self) -> usize {
        self.first + 1
    }
}

/// Makes a page of the fetched entries: at most [`PageRequest::fetch_limit`] entries after [`PageRequest::after`], in
/// order.
pub fn connection<K, N>(request: &PageRequest<K>, mut fetched: Vec<(K, N)>) -> Connection<K, N>
where
    K: Serialize + DeserializeOwned + Send + Sync,
    N: OutputType,
{
    let has_next = fetched.len() > request.first;
    fetched.truncate(request.first);
    let mut page = Connection::new(request.after.is_some(), has_next);
    page.edges.extend(
        fetched
            .into_iter()
            .map(|(key, node)| Edge::new(Cursor(key), node)),
    );
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use async_graphql::{
        EmptyMutation, EmptySubscription, Object, SDLExportOptions, Schema, SimpleObject,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::error_code::ErrorCode;

    #[derive(SimpleObject)]
    struct Customer {
        id: String,
    }

    struct Query;

    #[Object]
    impl Query {
        async fn customers(
            &self,
            #[graphql(default = 20)] first: i32,
            after: Option<String>,
        ) -> async_graphql::Result<Connection<String, Customer>> {
            let request = PageRequest::<String>::new(first, after.as_deref())?;
            let fetched = ["a", "b", "c"]
                .into_iter()
                .filter(|id| request.after.as_deref().is_none_or(|after| *id > after))
                .take(request.fetch_limit())
                .map(|id| (id.to_owned(), Customer { id: id.to_owned() }))
                .collect();
            Ok(connection(&request, fetched))
        }
    }

    fn schema() -> Schema<Query, EmptyMutation, EmptySubscription> {
        Schema::build(Query, EmptyMutation, EmptySubscription)
            .enable_federation()
            .finish()
    }

    #[test]
    fn the_types_have_the_names_and_shapes_of_the_contract() {
        let sdl =
            schema().sdl_with_options(SDLExportOptions::new().federation().compose_directive());
        let flat = sdl.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("type PageInfo @shareable"), "{sdl}");
        for expected in [
            "hasNextPage: Boolean!",
            "hasPreviousPage: Boolean!",
            "startCursor: String",
            "endCursor: String",
            "pageInfo: PageInfo!",
            "edges: [CustomerEdge!]!",
            "nodes: [Customer!]!",
            "cursor: String!",
            "node: Customer!",
            "customers(first: Int! = 20, after: String): CustomerConnection!",
        ] {
            assert!(flat.contains(expected), "{expected} is not in {sdl}");
        }
    }

    #[tokio::test]
    async fn pages_follow_each_other_without_a_gap() {
        const QUERY: &str = "query($after: String) { customers(first: 2, after: $after) {
            nodes { id } edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
        let schema = schema();
        let first = schema.execute(QUERY).await.data.into_json().unwrap();
        let page = &first["customers"];
        assert_eq!(page["nodes"], serde_json::json!([{"id": "a"}, {"id": "b"}]));
        assert_eq!(page["pageInfo"]["hasNextPage"], true);
        assert_eq!(page["pageInfo"]["hasPreviousPage"], false);
        assert_eq!(page["pageInfo"]["endCursor"], page["edges"][1]["cursor"]);
        let after = serde_json::json!({"after": page["pageInfo"]["endCursor"]});
        let request = async_graphql::Request::new(QUERY)
            .variables(async_graphql::Variables::from_json(after));
        let second = schema.execute(request).await.data.into_json().unwrap();
        let page = &second["customers"];
        assert_eq!(page["nodes"], serde_json::json!([{"id": "c"}]));
        assert_eq!(page["pageInfo"]["hasNextPage"], false);
        assert_eq!(page["pageInfo"]["hasPreviousPage"], true);
    }

    #[test]
    fn a_page_has_from_1_to_100_nodes() {
        for wrong in [i32::MIN, -1, 0, 101, i32::MAX] {
            let error = PageRequest::<String>::new(wrong, None).unwrap_err();
            assert_eq!(error.code, ErrorCode::BAD_USER_INPUT);
            assert_eq!(error.field.as_deref(), Some("first"));
        }
        for right in [1, 100] {
            assert!(PageRequest::<String>::new(right, None).is_ok());
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let other = Cursor(("2026", 5)).encode();
        for wrong in ["", "!", "abc", other.as_str()] {
            let error = PageRequest::<String>::new(1, Some(wrong)).unwrap_err();
            assert_eq!(error.code, ErrorCode::BAD_USER_INPUT);
            assert_eq!(error.field.as_deref(), Some("after"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_key_survives_its_cursor(text in ".*", number in any::<i64>()) {
            let cursor = Cursor((text, number));
            prop_assert_eq!(Cursor::<(String, i64)>::decode(&cursor.encode()), Ok(cursor));
        }
    }
}
