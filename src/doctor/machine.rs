//! Examines this machine: the data directory and its disk, the ports, the clock.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::{Duration, SystemTime},
};

use super::{DoctorSettings, Finding};
use crate::{
    disk::{TOO_LITTLE, advice, existing_parent, free_bytes},
    running::Found,
};

/// Less free space than this, in bytes, is soon used up.
const LITTLE: u64 = 1024 * 1024 * 1024;
/// The program was written after 2026-01-01T00:00:00Z, so a clock that shows an earlier time is wrong. In seconds since
/// 1970.
const EARLIEST: u64 = 1_767_225_600;

/// The default ports of `up`: the port, its variable and its service.
const PORTS: [(u16, &str, &str); 4] = [
    (8080, "TANDEM_ACCOUNTS_PORT", "accounts"),
    (8085, "TANDEM_ORDERS_PORT", "orders"),
    (9090, "TANDEM_GATEWAY_PORT", "gateway"),
    (9092, "TANDEM_BROKER_PORT", "broker"),
];

pub(super) fn examine(doctor: &DoctorSettings, found: &Found) -> Vec<Finding> {
    let mut findings = vec![clock()];
    let directory = &doctor.place.data_dir;
    findings.push(data_directory(directory));
    findings.extend(disk(directory));
    if found.alive().is_none() {
        findings.extend(ports());
    }
    findings
}

#[expect(clippy::disallowed_methods, reason = "it examines the machine's clock")]
fn clock() -> Finding {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    if since.as_secs() < EARLIEST {
        return Finding::bad(
            "clock",
            "this machine's clock shows a time before this program was written",
            "set it, for example with NTP: events are dated with it, and certificates are judged by it",
        );
    }
    Finding::good("clock", "this machine's clock is plausible")
}

fn data_directory(directory: &Path) -> Finding {
    let shown = directory.display();
    let subject = "data directory";
    let mend = |error: &std::io::Error| format!("{} (--data-dir, TANDEM_DATA_DIR)", advice(error));
    if !directory.exists() {
        let parent = existing_parent(directory);
        return match probe(&parent) {
            Ok(()) => Finding::good(subject, format!("{shown} is made by `tandem up`")),
            Err(error) => Finding::bad(
                subject,
                format!(
                    "{shown} is not there and cannot be made in {} ({error})",
                    parent.display()
                ),
                mend(&error),
            ),
        };
    }
    match probe(directory) {
        Ok(()) => Finding::good(subject, format!("{shown} can be written")),
        Err(error) => Finding::bad(
            subject,
            format!("{shown} cannot be written ({error})"),
            mend(&error),
        ),
    }
}

/// Writes a file and removes it.
fn probe(directory: &Path) -> std::io::Result<()> {
    let file = directory.join(format!(".tandem-doctor-{}", std::process::id()));
    std::fs::write(&file, "written by tandem doctor")?;
    std::fs::remove_file(file)
}

fn disk(directory: &Path) -> Option<Finding> {
    let free = free_bytes(directory)?;
    let told = format!(
        "{:.1} GiB free for {}",
        free as f64 / (1024.0 * 1024.0 * 1024.0),
        directory.display()
    );
    let mend = "make room, or choose a directory on another disk with --data-dir";
    Some(if free < TOO_LITTLE {
        Finding::bad("disk", told, mend)
    } else if free < LITTLE {
        Finding::doubtful("disk", told, mend)
    } else {
        Finding::good("disk", told)
    })
}

fn ports() -> Vec<Finding> {
    PORTS
        .iter()
        .map(|(usual, variable, name)| {
            let given = std::env::var(variable).ok();
            let port = given.as_deref().map_or(Ok(*usual), str::parse::<u16>);
            let flag = format!("--{name}-port ({variable})");
            let Ok(port) = port else {
                return Finding::bad(
                    "port",
                    format!("{variable} is no port: `{}`", given.unwrap_or_default()),
                    "write a number from 1 to 65535",
                );
            };
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(_) => Finding::good("port", format!("{port} for {name} is free")),
                Err(error) => Finding::bad(
                    "port",
                    format!("{port} for {name} cannot be used ({error})"),
                    format!(
                        "stop what has it (`ss -ltnp` lists it), or choose another with {flag}"
                    ),
                ),
            }
        })
        .collect()
}
