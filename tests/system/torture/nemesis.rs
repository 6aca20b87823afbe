//! Breaks the system: kills and pauses processes, sets clocks wrong, fills disks, and writes to the log without the
//! services.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    super::support::{Signal, Tandem, limit_files, try_signal, workload::Random},
    foreign::Foreign,
    servers::Servers,
};

/// The processes that `up` starts. With an external Kafka the first one is not among them.
const SERVICES: [&str; 4] = ["broker", "accounts", "orders", "router"];

/// The instants of kills: the moment, and the aggregate, topic or projection.
pub const INSTANTS: [&str; 9] = [
    "before-write@customer",
    "before-publish@accounts.customer.change",
    "before-clear@accounts.customer.change",
    "before-commit@accounts-audit",
    "before-commit@orders-replica",
    "before-write@order",
    "before-publish@orders.order.change",
    "before-clear@orders.order.change",
    "before-commit@orders-audit",
];

/// By how many seconds a clock is set wrong, in either direction.
const WRONG: [i64; 4] = [3, 90, 3_600, 8 * 86_400];

/// What the nemesis has done.
#[derive(Debug, Default)]
pub struct Deeds {
    pub kills: BTreeMap<&'static str, u64>,
    pub pauses: u64,
    pub instants: u64,
    /// Everything else.
    pub others: BTreeMap<&'static str, u64>,
}

impl Deeds {
    fn count(&mut self, what: &'static str, times: u64) {
        *self.others.entry(what).or_default() += times;
    }
}

/// Breaks a system at random.
pub struct Nemesis<'a> {
    pub tandem: &'a mut Tandem,
    pub random: Random,
    /// The file that `TANDEM_FAULT_FILE` names to the processes.
    pub instant_file: PathBuf,
    /// The directory that `TANDEM_CLOCK_DIRECTORY` names to the processes.
    pub clocks: PathBuf,
    pub servers: Option<&'a Servers>,
    pub foreign: Foreign,
    pub deeds: Deeds,
}

impl Nemesis<'_> {
    pub fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.random.below(to - from)) as u64)
    }

    fn services(&self) -> &'static [&'static str] {
        if self.servers.is_some() {
            &SERVICES[1..]
        } else {
            &SERVICES
        }
    }

    fn kill(&mut self, service: &'static str) {
        let killed = self
            .tandem
            .child(service)
            .is_some_and(|process| try_signal(process, Signal::KILL));
        *self.deeds.kills.entry(service).or_default() += u64::from(killed);
    }

    fn some_service(&mut self) -> &'static str {
        let services = self.services();
        services[self.random.below(services.len())]
    }

    pub fn strike(&mut self) {
        match self.random.below(100) {
            0..22 => {
                let service = self.some_service();
                self.kill(service);
            }
            22..34 => self.pause(),
            34..42 => {
                for service in self.services() {
                    if self.random.below(2) == 0 {
                        self.kill(service);
                    }
                }
            }
            42..50 => {
                let instant = INSTANTS[self.random.below(INSTANTS.len())];
                tell(&self.instant_file, instant);
                self.deeds.instants += 1;
            }
            50..55 => self.kill_up(),
            55..65 => self.write_past(),
            65..74 => self.transact(),
            74..84 => self.set_clock(),
            84..88 => self.add_partitions(),
            88..92 => self.empty_keys(),
            92..96 => self.fill_disk(),
            _ => self.break_a_server(),
        }
    }

    fn pause(&mut self) {
        let service = self.some_service();
        // Sometimes longer than a consumer group waits for its member.
        let long = self.random.below(8) == 0;
        let pause = if long {
            self.milliseconds(6_500, 9_000)
        } else {
            self.milliseconds(100, 2_000)
        };
        let Some(process) = self.tandem.child(service) else {
            return;
        };
        if try_signal(process, Signal::STOP) {
            self.deeds.pauses += 1;
            thread::sleep(pause);
            try_signal(process, Signal::CONT);
        }
    }

    fn kill_up(&mut self) {
        let with_children = self.random.below(2) == 0;
        self.tandem.process.signal(Signal::KILL);
        if with_children {
            for service in self.services() {
                self.kill(service);
            }
        }
        *self.deeds.kills.entry("up").or_default() += 1;
        self.tandem.process.wait_for_end(Duration::from_secs(10));
        // A process that was told to end at an instant must not do so during the start: `up` would rightly stop.
        let _ = std::fs::remove_file(&self.instant_file);
        self.tandem.start_again();
    }

    fn write_past(&mut self) {
        let written = self.foreign.write(&mut self.random).unwrap_or_default();
        self.deeds.count("foreign messages", written as u64);
        if self.random.below(6) == 0 {
            self.foreign.look();
        }
    }

    fn transact(&mut self) {
        // The embedded broker has no transactions.
        if self.servers.is_none() {
            return self.write_past();
        }
        if let Ok(ended) = self.foreign.transact(&mut self.random) {
            self.deeds.count(ended, 1);
        }
    }

    /// Sets the clock of one process wrong. A new process has the right time again.
    fn set_clock(&mut self) {
        let service = ["accounts", "orders"][self.random.below(2)];
        let by = WRONG[self.random.below(WRONG.len())];
        let by = [by, -by, 0][self.random.below(3)];
        if let Some(process) = self.tandem.child(service) {
            tell(&self.clocks.join(process.to_string()), &by.to_string());
            self.deeds.count("clock jumps", 1);
        }
    }

    fn add_partitions(&mut self) {
        let added = self.foreign.add_partitions(&mut self.random);
        let added = u64::from(added.unwrap_or_default());
        self.deeds.count("topics given partitions", added);
    }

    fn empty_keys(&mut self) {
        let emptied = self.foreign.empty_keys().unwrap_or_default();
        self.deeds.count("key topic emptied", u64::from(emptied));
    }

    fn fill_disk(&mut self) {
        let Some(servers) = self.servers.filter(|it| !it.has_embedded_stores()) else {
            return self.fill_disk_of_a_store();
        };
        let filled = servers.fill_disk();
        self.deeds.count("disks full", u64::from(filled));
    }

    /// Leaves a process that has files no disk space for a while.
    fn fill_disk_of_a_store(&mut self) {
        let with_files = &self.services()[..self.services().len() - 1];
        let service = with_files[self.random.below(with_files.len())];
        let while_full = self.milliseconds(200, 3_000);
        let Some(process) = self.tandem.child(service) else {
            return;
        };
        if limit_files(process, "1") {
            self.deeds.count("disks full", 1);
            thread::sleep(while_full);
            limit_files(process, "unlimited");
        }
    }

    fn break_a_server(&mut self) {
        let Some(servers) = self.servers else {
            return self.pause();
        };
        let what = servers.strike(&mut self.random);
        self.deeds.count(what, 1);
    }
}

/// Writes an instruction for processes to a file.
pub fn tell(file: &Path, what: &str) {
    // Written atomically, because a process must not read half of it.
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, what).unwrap();
    std::fs::rename(&unfinished, file).unwrap();
}
