//! A group and its members as an operator sees them.

use bytes::Bytes;

/// A group as an operator sees it.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// As Kafka names it.
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member as an operator sees it.
#[derive(Clone, Debug)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}
