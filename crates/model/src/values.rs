//! Values whose form depends on the format: times and exact decimals.
//!
//! In human-readable formats (JSON) they are text. In BSON they are dates and Decimal128, so a database can compare
//! them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An exact decimal number. Stored fields need `#[serde(with = "tandem_model::values::decimal")]`.
pub use rust_decimal::Decimal;

/// A time in UTC with milliseconds. As text it has the form of RFC 3339, such as `2026-11-23T16:21:44.123Z`.
///
/// Finer parts of a second are cut off, so stored, sent and compared times are the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The time at this many milliseconds since 1970 (before 1970, if negative). `None` outside chrono's range.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        DateTime::from_timestamp_millis(millis).map(Self)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(&self) -> i64 {
        self.0.timestamp_millis()
    }

    /// The same time as a type of chrono.
    #[must_use]
    pub fn as_datetime(&self) -> DateTime<Utc> {
        self.0
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(3))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        DateTime::<Utc>::from(time).into()
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl std::str::FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(DateTime::parse_from_rfc3339(text)?
            .with_timezone(&Utc)
            .into())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            bson::DateTime::from_millis(self.as_millis()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            DateTime::<chrono::FixedOffset>::deserialize(deserializer)
                .map(|time| time.with_timezone(&Utc).into())
        } else {
            let time = bson::DateTime::deserialize(deserializer)?;
            Self::from_millis(time.timestamp_millis())
                .ok_or_else(|| serde::de::Error::custom("a time out of range"))
        }
    }
}

/// Serde for a field of type [`Decimal`]: text such as `"12.50"` in JSON, Decimal128 in BSON.
pub mod decimal {
    use super::{Decimal, Deserialize, Deserializer, Serialize, Serializer};

    /// Writes a decimal.
    ///
    /// # Errors
    /// When the format fails, or the number has no Decimal128. Our numbers always have one: their 28 digits fit into
    /// its 34.
    pub fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(value);
        }
        value
            .to_string()
            .parse::<bson::Decimal128>()
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }

    /// Reads a decimal.
    ///
    /// # Errors
    /// When the value is not a decimal number, or has more digits than [`Decimal`] can hold.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        let text = if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
        } else {
            bson::Decimal128::deserialize(deserializer)?.to_string()
        };
        text.parse()
            .or_else(|_| Decimal::from_scientific(&text))
            .map_err(serde::de::Error::custom)
    }
}

/// The time from `since` to `now`. Zero if `since` is in the future, which happens when another machine's clock is
/// ahead.
#[must_use]
pub fn elapsed(since: DateTime<Utc>, now: SystemTime) -> Duration {
    let elapsed = DateTime::<Utc>::from(now) - since;
    elapsed.to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Held {
        at: Timestamp,
        #[serde(with = "decimal")]
        price: Decimal,
    }

    fn held() -> Held {
        Held {
            at: "2026-11-23T16:21:44.123Z".parse().unwrap(),
            price: "12.50".parse().unwrap(),
        }
    }

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let time: Timestamp = "2026-11-23T17:21:44.123987+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-23T16:21:44.123Z");
        let whole: Timestamp = "2026-11-23T16:21:44Z".parse().unwrap();
        assert_eq!(whole.to_string(), "2026-11-23T16:21:44.000Z");
        assert_eq!(Timestamp::from_millis(time.as_millis()), Some(time));
    }

    #[test]
    fn json_holds_text_and_reads_it_back() {
        let json = serde_json::to_string(&held()).unwrap();
        assert_eq!(
            json,
            "{\"at\":\"2026-11-23T16:21:44.123Z\",\"price\":\"12.50\"}"
        );
        assert_eq!(serde_json::from_str::<Held>(&json).unwrap(), held());
    }

    #[test]
    fn bson_holds_a_date_and_a_decimal_and_reads_them_back() {
        // Not `serialize_to_document`, because that function asks for the human-readable form.
        let bytes = bson::serialize_to_vec(&held()).unwrap();
        let document = bson::Document::from_reader(bytes.as_slice()).unwrap();
        assert!(
            matches!(document.get("at"), Some(bson::Bson::DateTime(_))),
            "{document}"
        );
        assert!(
            matches!(document.get("price"), Some(bson::Bson::Decimal128(_))),
            "{document}"
        );
        assert_eq!(
            bson::deserialize_from_slice::<Held>(&bytes).unwrap(),
            held()
        );
    }
}
