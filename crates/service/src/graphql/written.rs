//! Serializes the events of subscriptions once for many subscribers. When one change goes to ten thousand subscribers
//! with the same selection, most of the work would be to resolve and serialize it for each. Their responses differ only
//! in the cursors, and not even there if the subscribers received the same event before.
//!
//! A resolver that supports this puts the events into the request's [`Handover`], and the endpoint sends those.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_graphql::{Response, Value};
use axum::body::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::documents::may_be_kept;

/// The responses of a subscription, each one a server-sent event.
pub type Events = BoxStream<'static, Bytes>;

/// Where a subscription's resolver puts its events, in the data of the request. Clones share one place.
#[derive(Clone)]
pub struct Handover {
    may_be_kept: bool,
    left: Arc<Mutex<Option<Events>>>,
}

impl Handover {
    /// The handover of a request with this document.
    #[must_use]
    pub fn of(document: &str) -> Self {
        Self {
            may_be_kept: may_be_kept(document),
            left: Arc::default(),
        }
    }

    /// Whether results that derive from the document may be cached.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.may_be_kept
    }

    /// Hands over the events. The stream that the resolver returns besides must be empty.
    pub fn give(&self, events: Events) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    /// Takes the events, if there are any.
    #[must_use]
    pub fn take(&self) -> Option<Events> {
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Whether the operation did not run at all. Such a response has no data.
pub(super) fn is_refusal(response: &Response) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// A response as JSON. If the operation did not run at all, it has no member `data`.
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

/// A response as a server-sent event. Its JSON contains no line breaks.
#[must_use]
pub fn event(response: &[u8]) -> Bytes {
    [b"event: next\ndata: ", response, b"\n\n"].concat().into()
}

/// A placeholder in a response for a subscriber's own value. Its text never leaves the process, so no caller can put it
/// into the data.
#[derive(Debug)]
pub struct Mark(String);

impl Mark {
    #[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
    fn new() -> Self {
        Self(format!("mark-{}", Uuid::new_v4().simple()))
    }

    /// The text of the placeholder.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.clone()
    }
}

/// The placeholder for the cursor of an item.
pub static CURSOR: LazyLock<Mark> = LazyLock::new(Mark::new);
/// The placeholder for the previous cursor.
pub static PREVIOUS: LazyLock<Mark> = LazyLock::new(Mark::new);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Cursor,
    Previous,
}

/// A serialized response with holes for the cursors.
#[derive(Debug)]
pub struct Template {
    text: Box<[u8]>,
    /// The positions of the holes in the text, in order.
    holes: Box<[(usize, Hole)]>,
    /// The last filled text. Most subscribers have the same cursors, and share it.
    last: Mutex<Option<Filled>>,
}

#[derive(Debug)]
struct Filled {
    cursor: Arc<str>,
    previous: Arc<str>,
    text: Bytes,
}

impl Template {
    /// Makes a template of a serialized response that contains [`CURSOR`] and [`PREVIOUS`] as texts.
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

    /// The text with these cursors, which contain no character that JSON escapes. Consecutive callers with equal
    /// cursors share one text.
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

/// The serialized responses of one change, one for each selection. They are stored with the change and dropped with it.
#[derive(Debug, Default)]
pub struct Templates(Mutex<Vec<(u64, Arc<OnceCell<Template>>)>>);

impl PartialEq for Templates {
    /// Templates derive from the change, so they do not affect its equality.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Templates {
    /// The template for the selection of this number. The first caller that needs it fills the cell.
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
        // Equal cursors in another allocation, as after a resume.
        let second = template.filled(&"2".into(), &"1".into());
        assert_eq!((&first, first.as_ptr()), (&second, second.as_ptr()));
        assert_eq!(template.filled(&two, &three), "2 3");
        assert_eq!(template.filled(&three, &three), "3 3");
        assert_eq!(template.filled(&two, &one), "2 1");
    }
}
