//! A group and its members, as described to operators.

use bytes::Bytes;

/// The description of a group.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// The name of the state in Kafka.
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// The description of a member.
#[derive(Clone, Debug)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}
