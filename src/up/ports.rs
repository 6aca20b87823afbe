//! Whether the ports are free, found out before anything is started.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use tokio::time::Instant;

use super::service::Service;

/// How long a port may stay taken by what is ending.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same after an `up` that was killed: its children have four seconds to end.
const PATIENCE_AFTER_A_KILL: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(50);

/// Why the ports cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// Two services are to have one port.
    #[error("--{}-port and --{}-port are both {port}; each service needs a port of its own", first.flag(), second.flag())]
    Same {
        /// The port.
        port: u16,
        /// The one service.
        first: Service,
        /// The other.
        second: Service,
    },
    /// Something listens on it.
    #[error("port {port} for {} is taken by another program; stop that, or choose another port with --{}-port", service.name(), service.flag())]
    Taken {
        /// The port.
        port: u16,
        /// Who is to have it.
        service: Service,
    },
    /// The system refuses it.
    #[error("port {port} for {} cannot be used ({source}); choose another with --{}-port", service.name(), service.flag())]
    Refused {
        /// The port.
        port: u16,
        /// Who is to have it.
        service: Service,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// Checks that each port can be listened on.
///
/// # Errors
///
/// [`PortError`] names the port, the service and the flag.
pub(super) async fn check(ports: &[(u16, Service)], after_a_kill: bool) -> Result<(), PortError> {
    for (index, (port, second)) in ports.iter().enumerate() {
        if let Some((_, first)) = ports.iter().take(index).find(|(other, _)| other == port) {
            return Err(PortError::Same {
                port: *port,
                first: *first,
                second: *second,
            });
        }
    }
    let patience = if after_a_kill {
        PATIENCE_AFTER_A_KILL
    } else {
        PATIENCE
    };
    let deadline = Instant::now() + patience;
    for (port, service) in ports {
        let (port, service) = (*port, *service);
        while let Err(source) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            if source.kind() != std::io::ErrorKind::AddrInUse {
                return Err(PortError::Refused {
                    port,
                    service,
                    source,
                });
            }
            if Instant::now() > deadline {
                return Err(PortError::Taken { port, service });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
