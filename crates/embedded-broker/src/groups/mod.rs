//! Consumer groups: their members ([`membership`], in memory) and their committed offsets (in the log).

pub(crate) mod membership;

pub(crate) use membership::{Described, Join, Joined, Membership, Refusal};
