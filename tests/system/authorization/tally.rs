//! Cells of the table that were tried, and those among them that are not as they are written.

use std::fmt::Debug;

/// Counts what is tried, and goes on where something is wrong: all that is wrong is told at the end.
#[derive(Default)]
pub struct Tally {
    cells: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// One cell: what came, and what is to come.
    pub fn check<T: PartialEq + Debug>(
        &mut self,
        what: impl FnOnce() -> String,
        got: T,
        wanted: T,
    ) {
        self.cells += 1;
        if got != wanted {
            self.wrong
                .push(format!("{}: {got:?}, not {wanted:?}", what()));
        }
    }

    /// What must hold of a cell beside its verdict.
    pub fn hold(&mut self, what: impl FnOnce() -> String, holds: bool) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Says how many were tried, and fails unless all are right.
    pub fn close(self) {
        let Self { cells, wrong } = self;
        println!("{cells} cells of the table of authorization were tried");
        assert!(wrong.is_empty(), "{} of {cells}: {wrong:#?}", wrong.len());
    }
}
