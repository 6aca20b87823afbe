//! The SDL that `_service { sdl }` returns, where it differs from the schema's own.

use std::sync::Arc;

use async_graphql::{Executor, Request, Response, Value};

/// The SDL that replaces the schema's own in responses.
#[derive(Clone)]
pub(super) struct PublishedSdl {
    published: Arc<str>,
    /// The schema's own SDL, read once.
    own: Arc<tokio::sync::OnceCell<Option<String>>>,
}

/// The root field with which a federated router queries the SDL.
pub(super) const SERVICE: &str = "_service";

impl PublishedSdl {
    pub(super) fn new(published: Arc<str>) -> Self {
        Self {
            published,
            own: Arc::default(),
        }
    }

    /// Replaces the schema's own SDL in a response. The field is found by its value, because a query may use aliases.
    pub(super) async fn put<E: Executor>(&self, executor: &E, response: &mut Response) {
        let ask = async || {
            let asked = Request::new("{ _service { sdl } }");
            match executor.execute(asked).await.data.into_json().ok()? {
                serde_json::Value::Object(data) => {
                    Some(data.get(SERVICE)?.get("sdl")?.as_str()?.to_owned())
                }
                _ => None,
            }
        };
        let Some(own) = self.own.get_or_init(ask).await else {
            return;
        };
        let Value::Object(data) = &mut response.data else {
            return;
        };
        for service in data.values_mut() {
            let Value::Object(service) = service else {
                continue;
            };
            for text in service.values_mut() {
                if matches!(text, Value::String(text) if text == own) {
                    *text = Value::String(self.published.to_string());
                }
            }
        }
    }
}
