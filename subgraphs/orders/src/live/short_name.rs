//! Names in four bytes, as cursors have them: of the system whose log a place is in, of a customer, and of what a feed is
//! about.

/// A name in 4 bytes, the same in every process (FNV-1a). It tells apart what was confused by mistake; rights are asked elsewhere.
pub(super) fn in_short(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
