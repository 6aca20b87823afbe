//! Checks that the ports are free before anything starts.
#![expect(clippy::disallowed_methods, reason = "a command runs on real time")]

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use tokio::time::Instant;

use super::service::Service;

/// How long to wait for a port that a process on its way out still holds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same after an `up` that was killed. Its children have four seconds to end.
const PATIENCE_AFTER_A_KILL: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(50);

/// Why the ports cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// Two services have the same port.
    #[error("--{}-port and --{}-port are both {port}; each service needs a port of its own", first.flag(), second.flag())]
    Same {
        /// The port.
        port: u16,
        /// The first service.
        first: Service,
        /// The second service.
        second: Service,
    },
    /// Another process listens on the ports.
    #[error("{}", taken(ports))]
    Taken {
        /// Each port with the service that needs it.
        ports: Vec<(u16, Service)>,
    },
    /// The system refuses the port.
    #[error("port {port} for {} cannot be used ({source}); choose another with --{}-port", service.flag(), service.flag())]
    Refused {
        /// The port.
        port: u16,
        /// The service that needs it.
        service: Service,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// One sentence for all ports, so that the user does not find them one start at a time.
fn taken(ports: &[(u16, Service)]) -> String {
    let named: Vec<String> = ports
        .iter()
        .map(|(port, service)| format!("{port} for {}", service.flag()))
        .collect();
    let flags: Vec<String> = ports
        .iter()
        .map(|(_, service)| format!("--{}-port", service.flag()))
        .collect();
    if let ([port], [flag]) = (named.as_slice(), flags.as_slice()) {
        return format!(
            "port {port} is taken by another program; stop that, or choose another port with {flag}"
        );
    }
    format!(
        "ports {} are taken, perhaps by another `tandem up`; stop what has them (`ss -ltnp` lists it), or choose other ports with {}",
        in_words(&named),
        in_words(&flags)
    )
}

fn in_words(parts: &[String]) -> String {
    match parts {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        parts => parts.join(", "),
    }
}

/// Checks that each port can be listened on.
///
/// # Errors
///
/// [`PortError`] names the ports, the services and the flags.
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
    loop {
        let taken = taken_of(ports)?;
        if taken.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(PortError::Taken { ports: taken });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The ports that another process listens on now.
fn taken_of(ports: &[(u16, Service)]) -> Result<Vec<(u16, Service)>, PortError> {
    let mut taken = Vec::new();
    for (port, service) in ports {
        let (port, service) = (*port, *service);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {}
            Err(source) if source.kind() == std::io::ErrorKind::AddrInUse => {
                taken.push((port, service));
            }
            Err(source) => {
                return Err(PortError::Refused {
                    port,
                    service,
                    source,
                });
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_that_are_taken_are_named_in_one_sentence() {
        let ports = [
            (1, Service::Accounts),
            (2, Service::Router),
            (3, Service::Broker),
        ];
        let told = taken(&ports);
        assert!(
            told.starts_with("ports 1 for accounts, 2 for gateway and 3 for broker are taken"),
            "{told}"
        );
        assert!(
            told.ends_with("--accounts-port, --gateway-port and --broker-port"),
            "{told}"
        );
        let told = taken(&ports[..1]);
        assert!(told.starts_with("port 1 for accounts is taken"), "{told}");
        assert!(
            told.ends_with("another port with --accounts-port"),
            "{told}"
        );
    }
}
