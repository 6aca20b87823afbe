//! The caller of a session: the token at its start, and new tokens on the open socket.

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
    /// Handles a `connection_init` and returns the reply. In the older protocol a later one brings a new token.
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
            // The older protocol has a message for this error, which does not end the session.
            Err(error) if !is_first => {
                let refused = Refused::from(error);
                self.graphql.log_refusal(&refused, self.named());
                let errors = refused.errors();
                let error = &errors[0];
                Ok(Some(Utf8Bytes::from(format!(
                    r#"{{"type":"connection_error","payload":{error}}}"#
                ))))
            }
            // If a session begins with a bad token, each of its operations gets the error.
            Err(_) | Ok(()) => Ok(Some(Utf8Bytes::from_static(ACK))),
        }
    }

    /// Handles a `ping` and returns the reply. The member `authorization` of its payload is a new token for the
    /// operations that start from now on. The reply contains errors if the token is not accepted.
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

    /// Copies the headers from a payload and determines the caller from now on.
    ///
    /// # Errors
    /// Why the token is not accepted. If the rate limit prevents its verification, the caller stays as before.
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
                // As over HTTP, a verification is charged to the address first, because it is more expensive than a
                // cached token.
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
