//! Metrics of this process from the operating system, measured at each request for metrics.
#![expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]

use std::time::Instant;

/// Records the process's uptime since `started`, its memory and its processor time. The latter two only on Linux.
pub fn record_process(started: Instant) {
    metrics::gauge!("process_uptime_seconds").set(started.elapsed().as_secs_f64());
    if let Some(bytes) = resident_memory() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = processor_time() {
        metrics::gauge!("process_cpu_seconds").set(seconds);
    }
    if let Ok(count) = std::thread::available_parallelism() {
        metrics::gauge!("system_cpu_count")
            .set(f64::from(u32::try_from(count.get()).unwrap_or(u32::MAX)));
    }
}

/// Resident memory of this process, in bytes.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Processor time that this process has used, in seconds.
fn processor_time() -> Option<f64> {
    /// The kernel's unit in /proc, the same on every architecture that Linux still supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name of the program in parentheses, which may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #[cfg(target_os = "linux")]
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_processor_time_are_known_on_linux() {
        assert!(resident_memory().unwrap() > 1_000_000.0);
        assert!(processor_time().unwrap() >= 0.0);
    }
}
