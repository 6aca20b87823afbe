//! Subscriptions whose events are written once for many: where a change goes to ten thousand subscribers who selected the same of it,
//! resolving and writing it for each would be most of the work. Their responses differ in their cursors alone, and not even in those where
//! the subscribers were told the same before.
//!
//! A resolver that can do this leaves the events in the request's [`Handover`], and the endpoint sends those.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_graphql::{Response, Value};
use axum::body::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::documents::may_be_kept;

/// The responses of a subscription, each as a server-sent event.
pub type Events = BoxStream<'static, Bytes>;

/// Where a subscription's resolver leaves its events, among the data of the request. Clones are the same place.
#[derive(Clone)]
pub struct Handover {
    may_be_kept: bool,
    left: Arc<Mutex<Option<Events>>>,
}

impl Handover {
    /// Of a request with this document.
    #[must_use]
    pub fn of(document: &str) -> Self {
        Self {
            may_be_kept: may_be_kept(document),
            left: Arc::default(),
        }
    }

    /// Whether what is made of the document may be remembered.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.may_be_kept
    }

    /// Leaves the events. The stream that the resolver returns beside must be empty.
    pub fn give(&self, events: Events) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    /// Takes what was left.
    #[must_use]
    pub fn take(&self) -> Option<Events> {
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Whether the operation was not carried out at all: then a response has no data.
pub(super) fn is_refusal(response: &Response) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// A response as JSON. One of an operation that was not carried out at all has no data.
#[must_use]
pub fn response(response: &Response) -> Vec<u8> {
    let written = if is_refusal(response) {
        serde_json::to_vec(&json!({ "errors": response.errors }))
    } else {
        serde_json::to_vec(response)
    };
    written.unwrap_or_else(|error| {
        tracing::error!(%error, "a response cannot be written");
        b"{\"errors\":[{\"message\":\"internal error\",\"extensions\":{\"code\":\"INTERNAL\"}}]}"
            .to_vec()
    })
}

/// A response as a server-sent event. Its JSON has no line breaks.
#[must_use]
pub fn event(response: &[u8]) -> Bytes {
    [b"event: next\ndata: ", response, b"\n\n"].concat().into()
}

/// Stands in a response where a subscriber's own value goes. Nobody outside of the process ever sees one, so nobody can put one into
/// what is written.
#[derive(Debug)]
pub struct Mark(String);

impl Mark {
    #[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
    fn new() -> Self {
        Self(format!("mark-{}", Uuid::new_v4().simple()))
    }

    /// The text that is put into the response.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.clone()
    }
}

/// Stands for the cursor of an item.
pub static CURSOR: LazyLock<Mark> = LazyLock::new(Mark::new);
/// Stands for the cursor before it.
pub static PREVIOUS: LazyLock<Mark> = LazyLock::new(Mark::new);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Cursor,
    Previous,
}

/// What is written with holes where cursors go.
#[derive(Debug)]
pub struct Template {
    text: Box<[u8]>,
    /// Where the holes are in the text, in order.
    holes: Box<[(usize, Hole)]>,
    /// What was filled in last: most subscribers hold the same cursor, and share it.
    last: Mutex<Option<Filled>>,
}

#[derive(Debug)]
struct Filled {
    cursor: Arc<str>,
    previous: Arc<str>,
    text: Bytes,
}

impl Template {
    /// Of what has [`CURSOR`] and [`PREVIOUS`] as texts.
    #[must_use]
    pub fn of(written: &[u8]) -> Self {
        let marks = [
            (CURSOR.0.as_bytes(), Hole::Cursor),
            (PREVIOUS.0.as_bytes(), Hole::Previous),
        ];
        let mut text = Vec::with_capacity(written.len());
        let mut holes = Vec::new();
        let mut rest = written;
        loop {
            let found = marks
                .iter()
                .filter_map(|(mark, hole)| Some((find(rest, mark)?, mark.len(), *hole)))
                .min_by_key(|(at, ..)| *at);
            let Some((at, length, hole)) = found else {
                break;
            };
            text.extend_from_slice(&rest[..at]);
            holes.push((text.len(), hole));
            rest = &rest[at + length..];
        }
        text.extend_from_slice(rest);
        Self {
            text: text.into(),
            holes: holes.into(),
            last: Mutex::default(),
        }
    }

    /// The same with these cursors, which have no character that JSON escapes; one text for all who come with them one after the other.
    #[must_use]
    pub fn filled(&self, cursor: &Arc<str>, previous: &Arc<str>) -> Bytes {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.cursor == *cursor
            && last.previous == *previous
        {
            return last.text.clone();
        }
        let text = self.filled_anew(cursor, previous);
        *last = Some(Filled {
            cursor: Arc::clone(cursor),
            previous: Arc::clone(previous),
            text: text.clone(),
        });
        text
    }

    fn filled_anew(&self, cursor: &str, previous: &str) -> Bytes {
        let longest = cursor.len().max(previous.len());
        let mut filled = Vec::with_capacity(self.text.len() + self.holes.len() * longest);
        let mut from = 0;
        for (at, hole) in &self.holes {
            filled.extend_from_slice(&self.text[from..*at]);
            from = *at;
            filled.extend_from_slice(match hole {
                Hole::Cursor => cursor.as_bytes(),
                Hole::Previous => previous.as_bytes(),
            });
        }
        filled.extend_from_slice(&self.text[from..]);
        filled.into()
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|it| it == mark)
}

/// What was written of one change, for each selection of its subscribers. It is kept with the change, and goes with it.
#[derive(Debug, Default)]
pub struct Templates(Mutex<Vec<(u64, Arc<OnceCell<Template>>)>>);

impl PartialEq for Templates {
    /// They say nothing that the change does not say.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Templates {
    /// What was written for the selection of this number, or where it is to be written: once, by the first that needs it.
    #[must_use]
    pub fn of(&self, selection: u64) -> Arc<OnceCell<Template>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = known.iter().find(|(number, _)| *number == selection) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(OnceCell::new());
        known.push((selection, Arc::clone(&cell)));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_of_a_template_is_filled() {
        let (cursor, previous) = (CURSOR.text(), PREVIOUS.text());
        let response = format!(r#"{{"a":"{cursor}","b":["{previous}","{cursor}"],"c":"ö"}}"#);
        let template = Template::of(response.as_bytes());
        let (new, old): (Arc<str>, Arc<str>) = ("new".into(), "old".into());
        assert_eq!(
            template.filled(&new, &old),
            r#"{"a":"new","b":["old","new"],"c":"ö"}"#
        );
        assert_eq!(Template::of(b"{}").filled(&new, &old), "{}");
    }

    #[test]
    fn who_holds_the_same_cursors_shares_one_text_and_nobody_gets_that_of_others() {
        let (cursor, previous) = (CURSOR.text(), PREVIOUS.text());
        let template = Template::of(format!("{cursor} {previous}").as_bytes());
        let [one, two, three] = ["1", "2", "3"].map(Arc::<str>::from);
        let first = template.filled(&two, &one);
        // Equal, and another allocation, as of one who has resumed.
        let second = template.filled(&"2".into(), &"1".into());
        assert_eq!((&first, first.as_ptr()), (&second, second.as_ptr()));
        assert_eq!(template.filled(&two, &three), "2 3");
        assert_eq!(template.filled(&three, &three), "3 3");
        assert_eq!(template.filled(&two, &one), "2 1");
    }
}
