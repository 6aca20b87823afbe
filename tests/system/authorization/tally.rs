//! Counts the cells of the table that were tried, and collects those with a wrong result.

use std::fmt::Debug;

/// Continues after a wrong result, so that the end reports all of them.
#[derive(Default)]
pub struct Tally {
    cells: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Checks one cell: the actual and the expected result.
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

    /// Checks something about a cell besides its verdict.
    pub fn hold(&mut self, what: impl FnOnce() -> String, holds: bool) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Prints how many cells were tried, and fails unless all are right.
    pub fn close(self) {
        let Self { cells, wrong } = self;
        println!("{cells} cells of the table of authorization were tried");
        assert!(wrong.is_empty(), "{} of {cells}: {wrong:#?}", wrong.len());
    }
}
