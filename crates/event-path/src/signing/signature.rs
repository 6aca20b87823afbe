//! The signature of a record. Records that are published together share one signature. It covers the root of a hash
//! tree over them (as in RFC 6962, section 2.1), and each record carries the path from its leaf to that root. So a
//! record costs only a few hashes when many come together, and one signature when it comes alone.
//!
//! The text is `v1.` and base64url without padding of:
//!
//! * the id of the key (8 bytes)
//! * the Ed25519 signature (64 bytes)
//! * for each step from the leaf to the root: the side of the other node (a byte, 0 for left and 1 for right) and its
//!   hash (32 bytes)
//!
//! The signed bytes are the 20 bytes `tandem signature v1`, 0, and the root. An inner node is SHA-256 of a byte 1, the
//! left hash and the right hash.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{
    canonical::Leaf,
    key::{KEY_ID_BYTES, KeyId, SigningKey, VerifyingKey},
};

/// Most records that share a signature.
pub const MOST_TOGETHER: usize = 64;
/// Most steps from a leaf to its root.
const MOST_STEPS: usize = 8;
const PREFIX: &str = "v1.";
const SIGNED_PREFIX: &[u8; 20] = b"tandem signature v1\0";
const SIGNATURE_BYTES: usize = 64;
const NODE: u8 = 1;

/// Why a record does not count as one of the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The record needs a signature and has none.
    #[error(
        "header ce_tandemsignature is missing: this topic's records are signed by {0} from here on"
    )]
    Missing(String),
    /// The header is not a valid signature.
    #[error("header ce_tandemsignature is not a signature of version 1")]
    Malformed,
    /// The record has more than one signature.
    #[error("header ce_tandemsignature is there twice")]
    Twice,
    /// The record is signed with a key that does not belong to the service.
    #[error("it is signed by the key {key}, which is none of those of {service}")]
    OtherKey {
        /// The id of the key.
        key: String,
        /// The service whose key is needed.
        service: String,
    },
    /// The record is signed with a key of the service that had already been replaced.
    #[error(
        "it is signed by the key {key} of {service}, which had been replaced before it was written"
    )]
    Replaced {
        /// The id of the key.
        key: String,
        /// The service that owned the key.
        service: String,
    },
    /// The record is signed with the right key, but was changed afterwards.
    #[error(
        "header ce_tandemsignature is the signature of another record: its topic, key, attributes or body were changed"
    )]
    Changed,
}

impl Unverified {
    pub(super) fn replaced(key: &VerifyingKey, service: &str) -> Self {
        Self::Replaced {
            key: hexadecimal(&key.id()),
            service: service.to_owned(),
        }
    }
}

/// The id of a key in hexadecimal digits.
pub(super) fn hexadecimal(key: &KeyId) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One step towards the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    is_right: bool,
    hash: Leaf,
}

/// A signature that was parsed from a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) key: KeyId,
    bytes: [u8; SIGNATURE_BYTES],
    steps: Vec<Step>,
}

/// The key, the root and the signature. The signature's bytes are included, because a correct root with wrong bytes is
/// not a valid signature.
pub(super) type Signed = (KeyId, Leaf, [u8; SIGNATURE_BYTES]);

fn node(left: &Leaf, right: &Leaf) -> Leaf {
    let mut node = [NODE; 1 + 2 * 32];
    node[1..33].copy_from_slice(left);
    node[33..].copy_from_slice(right);
    Sha256::digest(node).into()
}

/// The bytes that are signed for this root.
fn signed(root: &Leaf) -> [u8; SIGNED_PREFIX.len() + 32] {
    let mut signed = [0; SIGNED_PREFIX.len() + 32];
    signed[..SIGNED_PREFIX.len()].copy_from_slice(SIGNED_PREFIX);
    signed[SIGNED_PREFIX.len()..].copy_from_slice(root);
    signed
}

impl Signature {
    /// This signature as one of this root.
    pub(super) fn of_root(&self, root: Leaf) -> Signed {
        (self.key, root, self.bytes)
    }

    /// Parses the value of a header.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unverified> {
        let bytes = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.strip_prefix(PREFIX))
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .ok_or(Unverified::Malformed)?;
        let malformed = || Unverified::Malformed;
        let (key, rest) = bytes
            .split_first_chunk::<KEY_ID_BYTES>()
            .ok_or_else(malformed)?;
        let (signature, steps) = rest
            .split_first_chunk::<SIGNATURE_BYTES>()
            .ok_or_else(malformed)?;
        let (steps, rest) = steps.as_chunks::<33>();
        if !rest.is_empty() || steps.len() > MOST_STEPS {
            return Err(Unverified::Malformed);
        }
        let steps: Option<Vec<Step>> = steps
            .iter()
            .map(|step| {
                let (side, hash) = step.split_first()?;
                Some(Step {
                    is_right: match side {
                        0 => false,
                        1 => true,
                        _ => return None,
                    },
                    hash: hash.try_into().ok()?,
                })
            })
            .collect();
        Ok(Self {
            key: *key,
            bytes: *signature,
            steps: steps.ok_or(Unverified::Malformed)?,
        })
    }

    fn text(&self) -> String {
        let mut bytes = Vec::with_capacity(KEY_ID_BYTES + SIGNATURE_BYTES + 33 * self.steps.len());
        bytes.extend(self.key);
        bytes.extend(self.bytes);
        for step in &self.steps {
            bytes.push(u8::from(step.is_right));
            bytes.extend(step.hash);
        }
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The root to which the path of a record with this leaf leads.
    pub(super) fn root(&self, leaf: Leaf) -> Leaf {
        self.steps.iter().fold(leaf, |hash, step| {
            if step.is_right {
                node(&hash, &step.hash)
            } else {
                node(&step.hash, &hash)
            }
        })
    }

    /// Whether this key signed this root.
    pub(super) fn is_of(&self, root: &Leaf, key: &VerifyingKey) -> bool {
        key.verifies(&signed(root), &self.bytes)
    }
}

/// The signatures of records with these leaves, in order.
pub(super) fn sign(key: &SigningKey, leaves: &[Leaf]) -> Vec<String> {
    let mut steps: Vec<Vec<Step>> = vec![Vec::new(); leaves.len()];
    // For each node of the level: its hash, the index of the first leaf below it, and the index behind the last one.
    let mut level: Vec<(Leaf, usize, usize)> = leaves
        .iter()
        .enumerate()
        .map(|(place, leaf)| (*leaf, place, place + 1))
        .collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    for below in &mut steps[left.1..left.2] {
                        below.push(Step {
                            is_right: true,
                            hash: right.0,
                        });
                    }
                    for below in &mut steps[right.1..right.2] {
                        below.push(Step {
                            is_right: false,
                            hash: left.0,
                        });
                    }
                    (node(&left.0, &right.0), left.1, right.2)
                }
                // A node without a partner moves up unchanged.
                alone => alone[0],
            })
            .collect();
    }
    let Some((root, ..)) = level.first() else {
        return Vec::new();
    };
    let bytes = key.sign(&signed(root));
    let id = key.verifying().id();
    steps
        .into_iter()
        .map(|steps| {
            let signature = Signature {
                key: id,
                bytes,
                steps,
            };
            signature.text()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_record_of_a_group_of_any_size_leads_to_what_was_signed() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        for count in 1..=MOST_TOGETHER {
            let leaves: Vec<Leaf> = (0..count)
                .map(|place| Sha256::digest([u8::try_from(place).unwrap()]).into())
                .collect();
            let signatures = sign(&key, &leaves);
            assert_eq!(signatures.len(), count);
            for (leaf, text) in leaves.iter().zip(&signatures) {
                assert!(
                    text.len() + super::super::SIGNATURE.len() <= super::super::SIGNATURE_BYTES
                );
                let read = Signature::parse(text.as_bytes()).unwrap();
                assert!(read.is_of(&read.root(*leaf), key.verifying()));
                let other = Sha256::digest(leaf).into();
                assert!(!read.is_of(&read.root(other), key.verifying()));
            }
        }
        assert!(sign(&key, &[]).is_empty());
    }

    #[test]
    fn an_inner_node_is_no_record() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let leaves: [Leaf; 4] = [[1; 32], [2; 32], [3; 32], [4; 32]];
        let text = sign(&key, &leaves).remove(0);
        let mut cut = Signature::parse(text.as_bytes()).unwrap();
        // A leaf equal to the inner node above it leads to the root too. No canonical form has such a hash, because it
        // begins with another byte.
        cut.steps.remove(0);
        assert!(cut.is_of(&cut.root(node(&leaves[0], &leaves[1])), key.verifying()));
        assert_ne!(
            super::super::leaf("t", None, std::iter::empty(), None),
            node(&leaves[0], &leaves[1])
        );
    }

    #[test]
    fn what_is_no_signature_is_malformed() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let good = sign(&key, &[[1; 32], [2; 32]]).remove(0);
        let bytes = URL_SAFE_NO_PAD.decode(&good[3..]).unwrap();
        let text = |bytes: &[u8]| format!("v1.{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes();
        let mut side = bytes.clone();
        side[72] = 2;
        let long: Vec<u8> = bytes[..72].iter().copied().chain([0; 33 * 9]).collect();
        for bad in [
            b"".to_vec(),
            b"v1.".to_vec(),
            b"v2.AAAA".to_vec(),
            vec![0xff],
            text(&bytes[..71]),
            text(&bytes[..bytes.len() - 1]),
            text(&side),
            text(&long),
        ] {
            assert_eq!(Signature::parse(&bad), Err(Unverified::Malformed));
        }
    }
}
