//! Large answers that their clients have not read yet.
//!
//! There is a bound for all of them together and one for each client. A client that asks for much and reads slowly, or
//! not at all, only fills its own share.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::admission::{Client, Counted, Counter};

/// An answer of this many bytes or more is counted.
const LARGE: usize = 64 * 1024;
/// The size of the pieces that the connection gets. A piece that it has is not counted any more.
const PIECE: usize = 32 * 1024;
/// The message for a client with too much to read. Its operation was executed.
pub(crate) const TOO_MUCH_UNREAD: &str = "answers to this client that it has not read are as large as what is held: read them first; what was asked for was carried out all the same";

/// There is no room for another answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Counts an answer of this many bytes, if it is large.
///
/// # Errors
/// When the client, or all clients together, have too much to read.
pub(crate) fn held(
    answers: &Counter,
    client: Client,
    bytes: usize,
) -> Result<Option<Counted>, Full> {
    if bytes < LARGE {
        return Ok(None);
    }
    answers.admit_many(client, bytes).map(Some).ok_or(Full)
}

/// Counts an answer until its client has read it. An answer of unknown length has its own bounds. Pages and their
/// assets are not counted: they are in memory once for all readers.
///
/// # Errors
/// When the client, or all clients together, have too much to read.
pub(crate) fn counted(
    response: Response<Body>,
    answers: &Counter,
    client: Client,
) -> Result<Response<Body>, Full> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or(&b""[..], |kind| kind.as_bytes());
    let is = |word: &str| memchr::memmem::find(kind, word.as_bytes()).is_some();
    if !is("json") && !is("event-stream") {
        return Ok(response);
    }
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(match held(answers, client, bytes)? {
        None => response,
        Some(counted) => response.map(|body| {
            Body::new(InPieces {
                body,
                rest: Bytes::new(),
                _counted: counted,
            })
        }),
    })
}

/// A body that is delivered in pieces. Delivered whole, the connection would own it, and it would not be counted.
struct InPieces {
    body: Body,
    /// The part of the body's last frame that is still to be delivered.
    rest: Bytes,
    _counted: Counted,
}

impl HttpBody for InPieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = this.rest.len().min(PIECE);
        let piece = this.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(behind) => SizeHint::with_exact(behind.saturating_add(self.rest.len() as u64)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::admission::Most;

    const MOST: Most = Most {
        of_all: 5 * LARGE,
        of_address: 3 * LARGE,
        of_subject: 2 * LARGE,
    };

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    fn answer(bytes: usize) -> Response<Body> {
        let mut answer = Response::new(Body::from(vec![b'x'; bytes]));
        let kind = match bytes % 2 {
            0 => "application/graphql-response+json; charset=utf-8",
            _ => "text/event-stream",
        };
        let kind = HeaderValue::from_static(kind);
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    #[tokio::test]
    async fn a_large_answer_counts_until_it_is_read_and_is_whole() {
        let answers = Counter::new("test", MOST);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let ask = |client, bytes| counted(answer(bytes), &answers, client);
        let mut unread: Vec<_> = (0..3).map(|_| ask(one, LARGE).unwrap()).collect();
        assert_eq!(ask(one, LARGE).err(), Some(Full));
        // Small answers, pages, and those of others still pass, as long as the common bound permits.
        assert!(ask(one, LARGE - 1).is_ok());
        let page = Response::new(Body::from(vec![b'x'; LARGE]));
        assert!(counted(page, &answers, one).is_ok());
        unread.push(ask(other, LARGE).unwrap());
        unread.push(ask(other, LARGE).unwrap());
        assert_eq!(ask(client("10.0.0.3"), LARGE).err(), Some(Full));
        let read = unread.swap_remove(0).into_body();
        assert_eq!(read.size_hint().exact(), Some(LARGE as u64));
        assert_eq!(read.collect().await.unwrap().to_bytes().len(), LARGE);
        assert!(ask(one, LARGE).is_ok());
        // A client that disconnects frees its share too.
        drop(unread);
        assert!(ask(one, 3 * LARGE).is_ok());
    }

    #[tokio::test]
    async fn a_large_answer_is_given_in_pieces_and_says_how_much_is_left() {
        let answers = Counter::new("test", MOST);
        let bytes = 2 * LARGE + 1;
        let response = counted(answer(bytes), &answers, client("10.0.0.1")).unwrap();
        let mut body = response.into_body();
        let mut left = bytes;
        while left > 0 {
            assert!(!body.is_end_stream());
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE, "{}", piece.len());
            left -= piece.len();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
        }
        assert!(body.is_end_stream());
    }
}
