//! The caller of a session: the token of its beginning, and those that replace it on the open socket.

use axum::http::header;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Session;
use crate::graphql::error::{Code, Refused, RequestError};
use crate::graphql::inner::Inner;
use crate::graphql::websocket::close_code::{self, Close};
use crate::graphql::websocket::init_headers::take_headers;
use crate::http::admission::{TOO_FAST, whole_seconds};

const ACK: &str = r#"{"type":"connection_ack"}"#;
const PONG: &str = r#"{"type":"pong"}"#;

impl<I: Inner> Session<I> {
    /// Takes a `connection_init`; what is answered. In the older protocol another one brings a new token.
    pub(super) async fn initialise(
        &mut self,
        payload: Option<&RawValue>,
    ) -> Result<Option<Utf8Bytes>, Close> {
        let is_first = !self.is_initialised;
        let identified = Box::pin(self.identify(payload)).await;
        self.is_initialised = true;
        match identified {
            Err(error) if is_first && error.code() == Code::RateLimited => {
                Err(Close(close_code::TRY_AGAIN, TOO_FAST))
            }
            // A message of the older protocol: it ends nothing.
            Err(error) if !is_first => {
                let refused = Refused::from(error);
                self.graphql.log_refusal(&refused, self.named());
                let errors = refused.errors();
                let error = &errors[0];
                Ok(Some(Utf8Bytes::from(format!(
                    r#"{{"type":"connection_error","payload":{error}}}"#
                ))))
            }
            // Of a session that begins with a bad token each operation is told so.
            Err(_) | Ok(()) => Ok(Some(Utf8Bytes::from_static(ACK))),
        }
    }

    /// Takes a `ping`; what is answered. A member `authorization` of its payload is a new token, for what is begun from now on; the answer
    /// says so if it is not taken.
    pub(super) async fn answer_ping(&mut self, payload: Option<&RawValue>) -> Utf8Bytes {
        if !self.is_initialised || payload.is_none() {
            return Utf8Bytes::from_static(PONG);
        }
        match Box::pin(self.identify(payload)).await {
            Ok(()) => Utf8Bytes::from_static(PONG),
            Err(error) => {
                let refused = Refused::from(error);
                self.graphql.log_refusal(&refused, self.named());
                let errors = refused.errors();
                Utf8Bytes::from(format!(
                    r#"{{"type":"pong","payload":{{"errors":{errors}}}}}"#
                ))
            }
        }
    }

    /// Takes what a payload has of headers, and learns from them who asks from now on.
    ///
    /// # Errors
    /// Why the token is not taken. Where that is not known, since it is verified only within the client's share, all stays as it was.
    async fn identify(&mut self, payload: Option<&RawValue>) -> Result<(), RequestError> {
        let headers = self.origin.headers_mut();
        let before = headers.get(header::AUTHORIZATION).cloned();
        let brings_token = take_headers(headers, payload);
        if self.is_initialised && !brings_token {
            return Ok(());
        }
        let identity = match self.by.identifier.at_once(self.origin.headers()) {
            Some(identity) => identity,
            None => {
                // As over HTTP: to verify a token costs more than to know it, and is paid of the address's share first.
                if let Err(wait) = self.by.rate.take(self.by.address) {
                    let headers = self.origin.headers_mut();
                    headers.remove(header::AUTHORIZATION);
                    if let Some(before) = before {
                        headers.insert(header::AUTHORIZATION, before);
                    }
                    return Err(RequestError::rate_limited(whole_seconds(wait), TOO_FAST));
                }
                self.by.identifier.identify(self.origin.headers()).await
            }
        };
        let access = identity.access();
        self.by.identity = identity;
        access
            .map(drop)
            .map_err(|rejection| RequestError::token(&rejection))
    }
}
