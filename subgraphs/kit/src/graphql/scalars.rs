//! Scalars whose written form is part of the contract.

use std::fmt;

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An exact decimal number: the scalar `Decimal`, written as a JSON string such as `"12.50"`.
pub use rust_decimal::Decimal;

/// A time in UTC with milliseconds: the scalar `DateTime`, written as RFC 3339 such as `2026-11-23T16:21:44.123Z`.
///
/// Finer parts of a second are cut off, so that what is stored, sent and compared is the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The present time.
    pub fn now() -> Self {
        Utc::now().into()
    }

    /// The time this many milliseconds after 1970 began (before it, if negative); `None` outside chrono's range.
    pub fn from_millis(millis: i64) -> Option<Self> {
        DateTime::from_timestamp_millis(millis).map(Self)
    }

    /// Milliseconds since 1970 began.
    pub fn as_millis(&self) -> i64 {
        self.0.timestamp_millis()
    }

    /// The same as chrono has it.
    pub fn as_datetime(&self) -> DateTime<Utc> {
        self.0
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(3))
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
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DateTime::<chrono::FixedOffset>::deserialize(deserializer)
            .map(|time| time.with_timezone(&Utc).into())
    }
}

/// A time: RFC 3339, UTC, with milliseconds, such as `2026-11-23T16:21:44.123Z`.
#[Scalar(
    name = "DateTime",
    specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339"
)]
impl ScalarType for Timestamp {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => text.parse().map_err(|error| {
                InputValueError::custom(format_args!(
                    "{error}; write an RFC 3339 time such as 2026-11-23T16:21:44.123Z"
                ))
            }),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let time: Timestamp = "2026-11-23T17:21:44.123987+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-23T16:21:44.123Z");
        let whole: Timestamp = "2026-11-23T16:21:44Z".parse().unwrap();
        assert_eq!(whole.to_string(), "2026-11-23T16:21:44.000Z");
    }

    #[test]
    fn a_time_survives_json_graphql_and_milliseconds() {
        let time = Timestamp::now();
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        assert_eq!(Timestamp::parse(time.to_value()).unwrap(), time);
        assert_eq!(Timestamp::from_millis(time.as_millis()), Some(time));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert!(Timestamp::parse(Value::String("yesterday".into())).is_err());
        assert!(Timestamp::parse(Value::from(5)).is_err());
        assert!(serde_json::from_str::<Timestamp>("\"2026-13-01T00:00:00Z\"").is_err());
    }

    #[test]
    fn a_decimal_is_exact_and_written_as_a_string() {
        let price = <Decimal as ScalarType>::parse(Value::String("12.50".into())).unwrap();
        assert_eq!(price.to_value(), Value::String("12.50".into()));
        let number = serde_json::from_str::<serde_json::Value>("12.1").unwrap();
        let price = <Decimal as ScalarType>::parse(Value::from_json(number).unwrap()).unwrap();
        assert_eq!(price.to_value(), Value::String("12.1".into()));
    }
}
