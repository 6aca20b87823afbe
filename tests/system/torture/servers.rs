//! The real servers of the system, which are killed, paused, and left without disk space.

use std::time::Duration;

use tandem_backends::{Kafka, KafkaOptions, Mongo};
use tokio::runtime::Runtime;

use super::super::support::{Tandem, TandemBuilder, limit_files, poll_for, workload::Random};

/// How long a server without disk space has to end by itself.
const END: Duration = Duration::from_secs(5);

/// A Kafka, and a MongoDB unless the test uses the embedded stores.
pub struct Servers {
    runtime: Runtime,
    kafka: Kafka,
    mongo: Option<Mongo>,
}

impl Servers {
    pub fn start(with_mongo: bool) -> Self {
        let runtime = Runtime::new().unwrap();
        let kafka = runtime.block_on(Kafka::start(KafkaOptions::default()));
        let mongo = with_mongo.then(|| runtime.block_on(Mongo::start(1)).unwrap());
        Self {
            kafka: kafka.unwrap(),
            mongo,
            runtime,
        }
    }

    pub fn builder(&self) -> TandemBuilder {
        let builder = Tandem::builder().kafka(self.kafka.bootstrap());
        match &self.mongo {
            Some(mongo) => builder.flag("--mongodb-uri").flag(mongo.uri()),
            None => builder,
        }
    }

    /// Whether the services' stores are files.
    pub fn has_embedded_stores(&self) -> bool {
        self.mongo.is_none()
    }

    /// Kills or pauses a server. Returns what it did.
    pub fn strike(&self, random: &mut Random) -> &'static str {
        let pause = Duration::from_millis(300 + random.below(4_000) as u64);
        match (&self.mongo, random.below(4)) {
            (Some(mongo), 0) => {
                mongo.kill(0).unwrap();
                std::thread::sleep(pause / 2);
                self.runtime.block_on(mongo.start_again(0)).unwrap();
                "kills of MongoDB"
            }
            (Some(mongo), 1) => {
                mongo.pause(0).unwrap();
                std::thread::sleep(pause);
                mongo.resume(0).unwrap();
                "pauses of MongoDB"
            }
            (_, 0 | 2) => {
                self.kafka.kill(0).unwrap();
                std::thread::sleep(pause / 2);
                self.runtime.block_on(self.kafka.start_again(0)).unwrap();
                "kills of Kafka"
            }
            _ => {
                self.kafka.pause(0).unwrap();
                std::thread::sleep(pause);
                self.kafka.resume(0).unwrap();
                "pauses of Kafka"
            }
        }
    }

    /// Leaves MongoDB no disk space, which ends it, and then restarts it with space. Returns whether it did so.
    pub fn fill_disk(&self) -> bool {
        let Some(mongo) = &self.mongo else {
            return false;
        };
        let Ok(process) = mongo.process_id(0) else {
            return false;
        };
        if !limit_files(process, "1") {
            return false;
        }
        let ended = || (!super::super::support::is_alive(process)).then_some(());
        let begun = std::time::Instant::now();
        poll_for(END * 2, "MongoDB ends or has its time", || {
            ended().or_else(|| (begun.elapsed() >= END).then_some(()))
        });
        mongo.kill(0).unwrap();
        self.runtime.block_on(mongo.start_again(0)).unwrap();
        true
    }
}
