//! Rounds of rebuilds and of their floor, per target, and their summary.

use std::collections::BTreeMap;

use crate::{
    TARGETS,
    report::{self, Bars, say},
    shared::median,
};

/// Events read, and events per second, of each target.
pub type Rates = BTreeMap<String, (u64, f64)>;

/// The rounds of Tandem and of the floor, per target: events, Tandem, floor.
#[derive(Default)]
pub struct Rounds(BTreeMap<&'static str, Vec<(u64, f64, f64)>>);

impl Rounds {
    /// Adds a round of Tandem, and runs the floor for as many rows of each target.
    pub fn add(&mut self, ours: &Rates, floor: impl Fn(&'static str, u64) -> f64) {
        for (target, ..) in TARGETS {
            let (read, rate) = ours[target];
            let floor = floor(target, read);
            self.0.entry(target).or_default().push((read, rate, floor));
        }
    }

    fn median(&self, target: &str, part: fn(&(u64, f64, f64)) -> f64) -> f64 {
        median(self.0[target].iter().map(part).collect())
    }

    /// Prints the summary.
    pub fn show(&self, what: &str) {
        say!(
            "{what:<44} {:>8} {:>12} {:>12} {:>7}",
            "events",
            "ours, /s",
            "floor, /s",
            "ratio"
        );
        for (target, ..) in TARGETS {
            say!(
                "  {target:<42} {:>8} {:>12.0} {:>12.0} {:>7.2}",
                self.0[target][0].0,
                self.median(target, |round| round.1),
                self.median(target, |round| round.2),
                self.median(target, |round| round.1 / round.2)
            );
        }
    }

    /// Adds a chart of the summary to the report.
    pub fn draw(&self, chart: &str, title: &str, floor: &str) {
        let group = |(target, ..): (&str, &str, &str)| {
            let values = [
                self.median(target, |round| round.1),
                self.median(target, |round| round.2),
            ];
            (target.to_owned(), values.to_vec())
        };
        report::bars(
            chart,
            &Bars {
                title,
                unit: "a second",
                series: &["events that are rebuilt", floor],
                groups: TARGETS.into_iter().map(group).collect(),
            },
        );
    }
}
