//! The consistency token. It names what a client wrote, so that the next service can wait until it shows that.
//!
//! Its text is `v1`, then `~KIND.ID.REVISION` for each write, the newest last. Clients pass it on without reading it.
//! Anybody can make one, and how long its bearer waits, and what for in vain, reveals whether an object exists and at
//! which revision. So a token grants nothing: a service skips the entries that its bearer may not ask about anyway
//! (`tandem_service::web::consistency`). Its size is limited, so it cannot make a request wait for much.

use std::{fmt, str::FromStr};

/// The name of the HTTP header.
pub const HEADER: &str = "tandem-consistency";

/// Most writes in a token. If there are more, the oldest are dropped.
const MOST: usize = 32;
/// The longest text that is accepted, in bytes.
const LONGEST: usize = 4_096;
/// The longest id, in bytes.
const LONGEST_ID: usize = 64;
const VERSION: &str = "v1";

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A customer.
    Customer,
    /// An order.
    Order,
}

impl Kind {
    fn letter(self) -> &'static str {
        match self {
            Self::Customer => "c",
            Self::Order => "o",
        }
    }

    fn from_letter(letter: &str) -> Option<Self> {
        [Self::Customer, Self::Order]
            .into_iter()
            .find(|kind| kind.letter() == letter)
    }
}

/// One write: an object, and the revision that the write produced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Written {
    /// The kind of the object.
    pub kind: Kind,
    /// The object's id.
    pub id: String,
    /// The revision, at least 1.
    pub revision: i64,
}

/// A consistency token. Each object occurs once, with its newest revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consistency(Vec<Written>);

/// A text that is not a valid token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no token that a mutation's answer gave: it is ignored")]
pub struct Malformed;

impl Consistency {
    /// A token for one write.
    #[must_use]
    pub fn of(kind: Kind, id: impl Into<String>, revision: i64) -> Self {
        let id = id.into();
        Self(vec![Written { kind, id, revision }])
    }

    /// The writes, the newest last.
    #[must_use]
    pub fn written(&self) -> &[Written] {
        &self.0
    }

    /// Whether the token has no writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Merges two tokens. The writes of `later` count as newer.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        for mut one in later.0 {
            let known = self
                .0
                .iter()
                .position(|known| known.kind == one.kind && known.id == one.id);
            if let Some(at) = known {
                one.revision = one.revision.max(self.0.remove(at).revision);
            }
            self.0.push(one);
        }
        let forgotten = self.0.len().saturating_sub(MOST);
        self.0.drain(..forgotten);
        self
    }

    /// Reads several texts as one token. Invalid ones are ignored.
    pub fn joined<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::brought(texts).0
    }

    /// Like [`Self::joined`], and also says whether a text was ignored.
    pub fn brought<'a>(texts: impl IntoIterator<Item = &'a str>) -> (Self, Result<(), Malformed>) {
        let mut token = Self::default();
        let mut is_read = Ok(());
        for text in texts.into_iter().flat_map(|text| text.split(',')) {
            match text.trim().parse::<Self>() {
                Ok(one) => token = token.and(one),
                Err(malformed) => is_read = Err(malformed),
            }
        }
        (token, is_read)
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(VERSION)?;
        for Written { kind, id, revision } in &self.0 {
            write!(formatter, "~{}.{id}.{revision}", kind.letter())?;
        }
        Ok(())
    }
}

impl FromStr for Consistency {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() > LONGEST {
            return Err(Malformed);
        }
        let mut parts = text.split('~');
        if parts.next() != Some(VERSION) {
            return Err(Malformed);
        }
        let written = parts.map(read).collect::<Result<Vec<_>, _>>()?;
        if written.len() > MOST {
            return Err(Malformed);
        }
        Ok(Self::default().and(Self(written)))
    }
}

fn read(part: &str) -> Result<Written, Malformed> {
    let (kind, rest) = part.split_once('.').ok_or(Malformed)?;
    let (id, revision) = rest.split_once('.').ok_or(Malformed)?;
    let is_id = (1..=LONGEST_ID).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let revision: i64 = revision.parse().map_err(|_| Malformed)?;
    if !is_id || revision < 1 {
        return Err(Malformed);
    }
    Ok(Written {
        kind: Kind::from_letter(kind).ok_or(Malformed)?,
        id: id.to_owned(),
        revision,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn token(text: &str) -> Consistency {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for text in [
            "v1",
            "v1~c.ada-1815.3",
            "v1~c.7.1~o.0190f3b2-7c1e-7a00-8000-000000000001.12",
        ] {
            assert_eq!(token(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let many = format!("v1{}", "~c.1.1".repeat(MOST + 1));
        let long = format!("v1~c.{}.1", "x".repeat(LONGEST_ID + 1));
        for text in [
            "",
            "v2",
            "v1~",
            "v1~c",
            "v1~c.1",
            "v1~c..1",
            "v1~x.1.1",
            "v1~c.1.0",
            "v1~c.1.-1",
            "v1~c.a b.1",
            "v1~c.1.99999999999999999999",
            "null",
            &many,
            &long,
        ] {
            assert_eq!(text.parse::<Consistency>(), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn two_are_joined_with_the_newest_revision_of_each_thing() {
        let joined = token("v1~c.1.5~o.2.1").and(token("v1~c.1.3~c.3.1"));
        assert_eq!(joined.to_string(), "v1~o.2.1~c.1.5~c.3.1");
        let joined = Consistency::joined(["v1~c.1.1, v1~c.2.2", "nonsense", "v1~c.1.4"]);
        assert_eq!(joined.to_string(), "v1~c.2.2~c.1.4");
    }

    #[test]
    fn a_text_among_them_that_is_none_is_told_of() {
        for (texts, is_read) in [
            (&["v1~c.1.1", "v1~c.2.2"][..], Ok(())),
            (&[], Ok(())),
            (&["v1~c.1.1, nonsense"], Err(Malformed)),
            (&["", "v1~c.1.1"], Err(Malformed)),
        ] {
            let brought = Consistency::brought(texts.iter().copied());
            assert_eq!(brought.1, is_read, "{texts:?}");
        }
    }

    #[test]
    fn it_stays_bounded_and_forgets_the_oldest() {
        let mut all = Consistency::default();
        for id in 0..100 {
            all = all.and(Consistency::of(Kind::Order, id.to_string(), 1));
        }
        assert_eq!(all.written().len(), MOST);
        assert_eq!(all.written().last().unwrap().id, "99");
        assert_eq!(token(&all.to_string()), all);
    }
}
