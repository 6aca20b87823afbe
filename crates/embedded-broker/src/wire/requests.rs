//! The supported requests: their versions, and the layout of their bodies.
//!
//! The layouts are those of Apache Kafka's message definitions (`clients/src/main/resources/common/message`), without
//! names. A test compares them with what `kafka-protocol` encodes, in every version.

use kafka_protocol::messages::ApiKey;

/// A field of a body.
#[derive(Debug)]
pub(crate) struct Field {
    /// The first version that has it.
    pub(super) from: i16,
    /// The last version that has it.
    pub(super) to: i16,
    pub(super) kind: Kind,
}

/// The layout of a field.
#[derive(Debug)]
pub(crate) enum Kind {
    /// This many bytes.
    Fixed(usize),
    /// A nullable string.
    Text,
    /// Nullable bytes.
    Bytes,
    /// A nullable array of structures.
    Array(&'static [Field]),
    /// A nullable array of a plain field.
    List(&'static Field),
}

use Kind::{Array, Bytes, Fixed, List, Text};

const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn since(from: i16, kind: Kind) -> Field {
    between(from, i16::MAX, kind)
}

const fn until(to: i16, kind: Kind) -> Field {
    between(0, to, kind)
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, kind }
}

const BOOLEAN: Kind = Fixed(1);
const INT8: Kind = Fixed(1);
const INT16: Kind = Fixed(2);
const INT32: Kind = Fixed(4);
const INT64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const TEXTS: Kind = List(&all(Text));
const INT32S: Kind = List(&all(INT32));

/// A supported request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: ApiKey,
    oldest: i16,
    pub(crate) newest: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    flexible: i16,
    pub(super) body: &'static [Field],
}

impl Request {
    /// The oldest version that is announced to clients. Like Kafka, it announces `Produce` from version 0 on, but
    /// accepts it only from version 3 on: otherwise librdkafka before 2.8 does not compress (KAFKA-18659).
    pub(crate) fn announced_from(&self) -> i16 {
        if self.key == ApiKey::Produce {
            0
        } else {
            self.oldest
        }
    }

    pub(crate) fn takes(&self, version: i16) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    pub(super) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

const fn request(
    key: ApiKey,
    (oldest, newest): (i16, i16),
    flexible: i16,
    body: &'static [Field],
) -> Request {
    Request {
        key,
        oldest,
        newest,
        flexible,
        body,
    }
}

/// All supported requests.
pub(crate) const REQUESTS: &[Request] = &[
    request(
        ApiKey::Produce,
        (3, 13),
        9,
        &[
            all(Text),
            all(INT16),
            all(INT32),
            all(Array(&[
                until(12, Text),
                since(13, UUID),
                all(Array(&[all(INT32), all(Bytes)])),
            ])),
        ],
    ),
    request(
        ApiKey::Fetch,
        (4, 17),
        12,
        &[
            until(14, INT32),
            all(INT32),
            all(INT32),
            all(INT32),
            all(INT8),
            since(7, INT32),
            since(7, INT32),
            all(Array(&[
                until(12, Text),
                since(13, UUID),
                all(Array(&[
                    all(INT32),
                    since(9, INT32),
                    all(INT64),
                    since(12, INT32),
                    since(5, INT64),
                    all(INT32),
                ])),
            ])),
            since(7, Array(&[until(12, Text), since(13, UUID), all(INT32S)])),
            since(11, Text),
        ],
    ),
    request(
        ApiKey::ListOffsets,
        (1, 9),
        6,
        &[
            all(INT32),
            since(2, INT8),
            all(Array(&[
                all(Text),
                all(Array(&[all(INT32), since(4, INT32), all(INT64)])),
            ])),
        ],
    ),
    request(
        ApiKey::Metadata,
        (0, 13),
        9,
        &[
            all(Array(&[since(10, UUID), all(Text)])),
            since(4, BOOLEAN),
            between(8, 10, BOOLEAN),
            since(8, BOOLEAN),
        ],
    ),
    request(
        ApiKey::OffsetCommit,
        (2, 9),
        8,
        &[
            all(Text),
            all(INT32),
            all(Text),
            since(7, Text),
            until(4, INT64),
            all(Array(&[
                all(Text),
                all(Array(&[all(INT32), all(INT64), since(6, INT32), all(Text)])),
            ])),
        ],
    ),
    request(
        ApiKey::OffsetFetch,
        (1, 9),
        6,
        &[
            until(7, Text),
            until(7, Array(&[all(Text), all(INT32S)])),
            since(
                8,
                Array(&[
                    all(Text),
                    since(9, Text),
                    since(9, INT32),
                    all(Array(&[all(Text), all(INT32S)])),
                ]),
            ),
            since(7, BOOLEAN),
        ],
    ),
    request(
        ApiKey::FindCoordinator,
        (0, 4),
        3,
        &[until(3, Text), since(1, INT8), since(4, TEXTS)],
    ),
    request(
        ApiKey::JoinGroup,
        (0, 9),
        6,
        &[
            all(Text),
            all(INT32),
            since(1, INT32),
            all(Text),
            since(5, Text),
            all(Text),
            all(Array(&[all(Text), all(Bytes)])),
            since(8, Text),
        ],
    ),
    request(
        ApiKey::Heartbeat,
        (0, 4),
        4,
        &[all(Text), all(INT32), all(Text), since(3, Text)],
    ),
    request(
        ApiKey::LeaveGroup,
        (0, 5),
        4,
        &[
            all(Text),
            until(2, Text),
            since(3, Array(&[all(Text), all(Text), since(5, Text)])),
        ],
    ),
    request(
        ApiKey::SyncGroup,
        (0, 5),
        4,
        &[
            all(Text),
            all(INT32),
            all(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            all(Array(&[all(Text), all(Bytes)])),
        ],
    ),
    request(
        ApiKey::DescribeGroups,
        (0, 5),
        5,
        &[all(TEXTS), since(3, BOOLEAN)],
    ),
    request(
        ApiKey::ListGroups,
        (0, 5),
        3,
        &[since(4, TEXTS), since(5, TEXTS)],
    ),
    request(
        ApiKey::ApiVersions,
        (0, 4),
        3,
        &[since(3, Text), since(3, Text)],
    ),
    request(
        ApiKey::CreateTopics,
        (2, 7),
        5,
        &[
            all(Array(&[
                all(Text),
                all(INT32),
                all(INT16),
                all(Array(&[all(INT32), all(INT32S)])),
                all(Array(&[all(Text), all(Text)])),
            ])),
            all(INT32),
            all(BOOLEAN),
        ],
    ),
    request(
        ApiKey::DeleteTopics,
        (1, 6),
        4,
        &[
            since(6, Array(&[all(Text), all(UUID)])),
            until(5, TEXTS),
            all(INT32),
        ],
    ),
    request(
        ApiKey::DeleteRecords,
        (0, 2),
        2,
        &[
            all(Array(&[all(Text), all(Array(&[all(INT32), all(INT64)]))])),
            all(INT32),
        ],
    ),
    request(
        ApiKey::InitProducerId,
        (0, 5),
        2,
        &[all(Text), all(INT32), since(3, INT64), since(3, INT16)],
    ),
    request(
        ApiKey::OffsetForLeaderEpoch,
        (2, 4),
        4,
        &[
            since(3, INT32),
            all(Array(&[
                all(Text),
                all(Array(&[all(INT32), all(INT32), all(INT32)])),
            ])),
        ],
    ),
    request(
        ApiKey::DescribeConfigs,
        (1, 4),
        4,
        &[
            all(Array(&[all(INT8), all(Text), all(TEXTS)])),
            all(BOOLEAN),
            since(3, BOOLEAN),
        ],
    ),
    request(
        ApiKey::AlterConfigs,
        (0, 2),
        2,
        &[
            all(Array(&[
                all(INT8),
                all(Text),
                all(Array(&[all(Text), all(Text)])),
            ])),
            all(BOOLEAN),
        ],
    ),
    request(
        ApiKey::IncrementalAlterConfigs,
        (0, 1),
        1,
        &[
            all(Array(&[
                all(INT8),
                all(Text),
                all(Array(&[all(Text), all(INT8), all(Text)])),
            ])),
            all(BOOLEAN),
        ],
    ),
    request(
        ApiKey::CreatePartitions,
        (0, 3),
        2,
        &[
            all(Array(&[all(Text), all(INT32), all(Array(&[all(INT32S)]))])),
            all(INT32),
            all(BOOLEAN),
        ],
    ),
    request(ApiKey::DeleteGroups, (0, 2), 2, &[all(TEXTS)]),
    request(
        ApiKey::DescribeCluster,
        (0, 1),
        0,
        &[all(BOOLEAN), since(1, INT8)],
    ),
];
