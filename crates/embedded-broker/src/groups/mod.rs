//! Consumer groups: who is in them ([`membership`], in memory) and what they have committed (in the log).

pub(crate) mod membership;

pub(crate) use membership::{Described, Join, Joined, Membership, Refusal};
