//! Scalars with a textual form that is part of the contract.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

pub use tandem_model::values::Decimal;
use tandem_model::values::Timestamp;

/// A [`Timestamp`] as GraphQL writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub Timestamp);

impl From<Timestamp> for DateTime {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl From<chrono::DateTime<chrono::Utc>> for DateTime {
    fn from(time: chrono::DateTime<chrono::Utc>) -> Self {
        Self(time.into())
    }
}

/// A time: RFC 3339, UTC, with milliseconds, such as `2026-11-23T16:21:44.123Z`.
#[Scalar(
    name = "DateTime",
    specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339"
)]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => text.parse().map(Self).map_err(|error| {
                InputValueError::custom(format_args!(
                    "{error}; write an RFC 3339 time such as 2026-11-23T16:21:44.123Z"
                ))
            }),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_time_survives_graphql() {
        let time = DateTime(Timestamp::from(std::time::SystemTime::UNIX_EPOCH));
        assert_eq!(DateTime::parse(time.to_value()).unwrap(), time);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert!(DateTime::parse(Value::String("yesterday".into())).is_err());
        assert!(DateTime::parse(Value::from(5)).is_err());
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
