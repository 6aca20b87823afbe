//! Short names of four bytes in cursors: of the system that owns the log, of a customer, and of the filter of a feed.

/// The short name of a text: 4 bytes, the same in every process (FNV-1a). It detects cursors that are used by mistake
/// in the wrong place. It does not protect anything; access rights are checked elsewhere.
pub(super) fn in_short(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
