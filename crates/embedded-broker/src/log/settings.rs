//! The settings of a topic: those that this broker implements, and those of Apache Kafka that have no meaning on one
//! node.

use std::collections::BTreeMap;

/// The data type of a setting in `DescribeConfigs` (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    Text = 2,
    Integer = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Whole numbers from this one on.
    From(i64),
    /// Numbers from 0 to 1.
    Ratio,
    /// `delete`, `compact`, or both.
    Policies,
    /// `true` or `false`.
    Truth,
    /// Only its default.
    Default,
}

/// A known setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    takes: Takes,
}

const fn known(name: &'static str, default: &'static str, kind: Kind, takes: Takes) -> Known {
    Known {
        name,
        default,
        kind,
        takes,
    }
}

const CLEANUP_POLICY: &str = "cleanup.policy";
const DELETE_RETENTION: &str = "delete.retention.ms";
const DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
const LARGEST_BATCH: &str = "max.message.bytes";
const MAX_LAG: &str = "max.compaction.lag.ms";
const MIN_LAG: &str = "min.compaction.lag.ms";
const RETENTION: &str = "retention.ms";

/// All accepted settings, sorted. `retention.ms` differs from Kafka's default (a week), because an event store forgets
/// nothing by itself. Segments, flushes and replicas do not exist here; settings about them are stored without effect.
pub(crate) const KNOWN: [Known; 23] = [
    known(CLEANUP_POLICY, "delete", Kind::List, Takes::Policies),
    known("compression.type", "producer", Kind::Text, Takes::Default),
    known(DELETE_RETENTION, "86400000", Kind::Long, Takes::From(0)),
    known("file.delete.delay.ms", "60000", Kind::Long, Takes::From(0)),
    known(
        "flush.messages",
        "9223372036854775807",
        Kind::Long,
        Takes::From(1),
    ),
    known(
        "flush.ms",
        "9223372036854775807",
        Kind::Long,
        Takes::From(0),
    ),
    known(
        "index.interval.bytes",
        "4096",
        Kind::Integer,
        Takes::From(0),
    ),
    known(MAX_LAG, "9223372036854775807", Kind::Long, Takes::From(1)),
    known(LARGEST_BATCH, "1048588", Kind::Integer, Takes::From(0)),
    known(
        "message.timestamp.type",
        "CreateTime",
        Kind::Text,
        Takes::Default,
    ),
    known(DIRTY_RATIO, "0.5", Kind::Double, Takes::Ratio),
    known(MIN_LAG, "0", Kind::Long, Takes::From(0)),
    known("min.insync.replicas", "1", Kind::Integer, Takes::Default),
    known("preallocate", "false", Kind::Boolean, Takes::Truth),
    known(
        "remote.storage.enable",
        "false",
        Kind::Boolean,
        Takes::Default,
    ),
    known("retention.bytes", "-1", Kind::Long, Takes::Default),
    known(RETENTION, "-1", Kind::Long, Takes::From(-1)),
    known(
        "segment.bytes",
        "1073741824",
        Kind::Integer,
        Takes::From(14),
    ),
    known(
        "segment.index.bytes",
        "10485760",
        Kind::Integer,
        Takes::From(4),
    ),
    known("segment.jitter.ms", "0", Kind::Long, Takes::From(0)),
    known("segment.ms", "604800000", Kind::Long, Takes::From(1)),
    known(
        "unclean.leader.election.enable",
        "false",
        Kind::Boolean,
        Takes::Truth,
    ),
    known(
        "message.downconversion.enable",
        "true",
        Kind::Boolean,
        Takes::Truth,
    ),
];

/// A message about an invalid setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SettingError(String);

/// The settings of one topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicSettings {
    given: BTreeMap<&'static str, String>,
    /// Whether only the newest record of each key is kept.
    pub(crate) is_compacted: bool,
    /// Whether records before an offset may be removed. Not if the policy is only `compact`.
    pub(crate) deletes: bool,
    /// How long records are kept, in milliseconds; `None` means forever.
    pub(crate) retention: Option<i64>,
    /// How long a tombstone stays after it was first compacted, in milliseconds.
    pub(crate) tombstones: i64,
    /// Records younger than this are not compacted, in milliseconds.
    pub(crate) min_lag: i64,
    /// Records older than this are compacted, however few there are, in milliseconds.
    pub(crate) max_lag: i64,
    /// Compaction starts when this share of the log is new since the last one: 0 to 1.
    pub(crate) dirty_ratio: f64,
    /// The largest batch, in bytes.
    pub(crate) largest_batch: usize,
}

impl TopicSettings {
    /// The settings that were given for a new topic.
    ///
    /// # Errors
    /// If a setting is unknown, or its value is invalid.
    pub(crate) fn from_given<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SettingError> {
        let mut checked = BTreeMap::new();
        for (name, value) in given {
            let known = find(name)?;
            check(&known, value)?;
            checked.insert(known.name, value.trim().to_owned());
        }
        let text = |name: &'static str| {
            let default = || KNOWN.iter().find(|known| known.name == name);
            checked
                .get(name)
                .map(String::as_str)
                .or_else(|| default().map(|known| known.default))
                .unwrap_or_default()
        };
        let number = |name| text(name).parse::<i64>().unwrap_or(i64::MAX);
        let is_compacted = policies(text(CLEANUP_POLICY)).any(|policy| policy == "compact");
        let deletes = policies(text(CLEANUP_POLICY)).any(|policy| policy == "delete");
        Ok(Self {
            is_compacted,
            deletes,
            retention: Some(number(RETENTION)).filter(|limit| deletes && *limit >= 0),
            tombstones: number(DELETE_RETENTION),
            min_lag: number(MIN_LAG),
            max_lag: number(MAX_LAG),
            dirty_ratio: text(DIRTY_RATIO).parse().unwrap_or(0.5),
            largest_batch: usize::try_from(number(LARGEST_BATCH)).unwrap_or(usize::MAX),
            given: checked,
        })
    }

    /// The given settings, by name.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.given
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// The given value of a setting.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// The settings after changes. Each change is a name with its new value, or `None` for the default.
    ///
    /// # Errors
    /// If a setting is unknown, or its value is invalid.
    pub(crate) fn changed<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, SettingError> {
        let mut given: BTreeMap<&str, &str> = self.given().collect();
        for (name, value) in changes {
            let name = find(name)?.name;
            match value {
                Some(value) => given.insert(name, value),
                None => given.remove(name),
            };
        }
        Self::from_given(given)
    }
}

fn find(name: &str) -> Result<Known, SettingError> {
    let found = KNOWN.iter().find(|known| known.name == name);
    found.copied().ok_or_else(|| {
        SettingError(format!(
            "{name}: this broker knows no such setting of a topic"
        ))
    })
}

fn policies(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn check(known: &Known, value: &str) -> Result<(), SettingError> {
    let value = value.trim();
    let wanted = match known.takes {
        Takes::From(least) => {
            let largest = match known.kind {
                Kind::Integer => i64::from(i32::MAX),
                _ => i64::MAX,
            };
            let fits = value
                .parse::<i64>()
                .is_ok_and(|number| (least..=largest).contains(&number));
            (!fits).then(|| format!("a whole number from {least} to {largest}"))
        }
        Takes::Ratio => {
            let fits = value
                .parse::<f64>()
                .is_ok_and(|ratio| (0.0..=1.0).contains(&ratio));
            (!fits).then(|| "a number from 0 to 1".to_owned())
        }
        Takes::Policies => {
            let fits = policies(value).all(|policy| matches!(policy, "delete" | "compact"));
            (!fits).then(|| "delete, compact, or both with a comma".to_owned())
        }
        Takes::Truth => (!matches!(value, "true" | "false")).then(|| "true or false".to_owned()),
        Takes::Default => (value != known.default)
            .then(|| format!("{}: this broker has nothing else", known.default)),
    };
    match wanted {
        None => Ok(()),
        Some(wanted) => Err(SettingError(format!(
            "{}: {value:?} does not fit; wanted is {wanted}",
            known.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_store_keeps_everything_unless_it_is_told_otherwise() {
        let settings = TopicSettings::from_given([]).unwrap();
        assert_eq!(settings.retention, None);
        assert!(!settings.is_compacted);
        assert_eq!(settings.largest_batch, 1_048_588);
        let settings = TopicSettings::from_given([("retention.ms", "1000")]).unwrap();
        assert_eq!(settings.retention, Some(1000));
    }

    #[test]
    fn a_compacted_topic_has_no_retention_unless_it_is_also_to_delete() {
        let given = [("cleanup.policy", "compact"), ("retention.ms", "5")];
        let settings = TopicSettings::from_given(given).unwrap();
        assert!(settings.is_compacted && !settings.deletes);
        assert_eq!(settings.retention, None);
        let both = settings.changed([("cleanup.policy", Some("compact, delete"))]);
        let both = both.unwrap();
        assert!(both.is_compacted && both.deletes);
        assert_eq!(both.retention, Some(5));
    }

    #[test]
    fn what_is_not_known_or_does_not_fit_is_refused_by_name() {
        for (name, value) in [
            ("retention.msec", "5"),
            ("retention.ms", "-2"),
            ("retention.ms", "a week"),
            ("max.message.bytes", "3000000000"),
            ("cleanup.policy", "destroy"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("min.insync.replicas", "2"),
        ] {
            let error = TopicSettings::from_given([(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_setting_that_is_taken_back_has_its_default_again() {
        let settings = TopicSettings::from_given([("max.message.bytes", "1000")]).unwrap();
        assert_eq!(settings.largest_batch, 1000);
        let back = settings.changed([("max.message.bytes", None)]).unwrap();
        assert_eq!(back, TopicSettings::from_given([]).unwrap());
    }
}
