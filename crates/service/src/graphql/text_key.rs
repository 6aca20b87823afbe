//! Keys of lists in the order of a text. A cursor contains the list's name, so that a cursor of another list is
//! refused.

use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// A list in the order of ids.
pub trait TextList {
    /// Its name in cursors.
    const NAME: &'static str;

    /// Whether an entry of this list may have this id. Cursors of earlier versions contain only the id.
    fn may_have(id: &str) -> bool;
}

/// The key of an entry of the list `L`.
#[derive(Debug)]
pub struct TextKey<L> {
    /// The id of the entry.
    pub id: String,
    list: PhantomData<fn() -> L>,
}

impl<L: TextList> TextKey<L> {
    /// The key of the entry with this id.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            list: PhantomData,
        }
    }
}

impl<L: TextList> Serialize for TextKey<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (L::NAME, &self.id).serialize(serializer)
    }
}

/// The serialized form in cursors.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Former(String),
    Named(String, String),
}

impl<'de, L: TextList> Deserialize<'de> for TextKey<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = match Written::deserialize(deserializer)? {
            Written::Former(id) => Some(id),
            Written::Named(list, id) => (list == L::NAME).then_some(id),
        };
        id.filter(|id| L::may_have(id))
            .map(Self::new)
            .ok_or_else(|| D::Error::custom("a key of another list"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::graphql::{Cursor, ErrorCode, PageRequest};

    #[derive(Debug)]
    struct Numbers;

    impl TextList for Numbers {
        const NAME: &'static str = "numbers";

        fn may_have(id: &str) -> bool {
            id.parse::<u32>().is_ok()
        }
    }

    #[derive(Debug)]
    struct Words;

    impl TextList for Words {
        const NAME: &'static str = "words";

        fn may_have(id: &str) -> bool {
            !id.is_empty()
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused_even_if_its_id_could_be_of_this_one() {
        let cursor = Cursor(TextKey::<Numbers>::new("5")).encode();
        let page = PageRequest::<TextKey<Numbers>>::new(1, Some(&cursor)).unwrap();
        assert_eq!(page.after.unwrap().id, "5");
        let refused = PageRequest::<TextKey<Words>>::new(1, Some(&cursor)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BAD_USER_INPUT);
        assert_eq!(refused.field.as_deref(), Some("after"));
    }

    #[test]
    fn a_former_cursor_is_taken_where_its_id_may_be_of_the_list() {
        let former = |id: &str| Cursor(id.to_owned()).encode();
        let page = PageRequest::<TextKey<Numbers>>::new(1, Some(&former("5"))).unwrap();
        assert_eq!(page.after.unwrap().id, "5");
        let refused = PageRequest::<TextKey<Numbers>>::new(1, Some(&former("five"))).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("after"));
    }
}
