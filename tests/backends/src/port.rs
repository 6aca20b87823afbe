//! Reserves loopback ports for one test, also while nothing listens on them. A killed server can then return to its
//! port, and where a test needs a closed port, it stays closed.
//!
//! To the system such a port is free for everyone. So each is taken from below the range from which the system assigns
//! ports. A server's port is also locked by a file that every test process checks.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::Error;

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// A port of 127.0.0.1 that no other test of this kit uses until this value is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    // The lock is the reservation. Closing the file releases it.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    ///
    /// # Errors
    /// When no port of the range is free.
    pub(crate) fn reserve() -> Result<Self, Error> {
        // Processes begin at different ports, so that they rarely collide.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let span = LAST - FIRST + 1;
        let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span))
            .unwrap_or_default();
        let directory = std::env::temp_dir().join("tandem-backends-ports");
        fs::create_dir_all(&directory)?;
        for _ in 0..span {
            let number = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
            let lock = File::create(directory.join(number.to_string()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(Error::NoPort {
            from: FIRST,
            to: LAST,
        })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// A port of 127.0.0.1 on which nothing listens. No other test of this process gets it, and concurrent test processes
/// begin their search at other ports.
///
/// # Errors
/// When no port of the range is free.
pub fn free_port() -> Result<u16, Error> {
    Port::reserve().map(|port| port.number())
}
