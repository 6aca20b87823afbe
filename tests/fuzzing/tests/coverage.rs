//! Runs one target with libFuzzer. `TANDEM_FUZZ_TARGET` names the target. `tests/fuzzing/run` builds and calls this.
#![no_main]
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use tandem_fuzzing::targets::{self, Reader};

thread_local! {
    static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
}

/// Opens the target, and writes its seeds into the folder in `TANDEM_FUZZ_SEEDS`, if that is set.
fn open() {
    let name = std::env::var("TANDEM_FUZZ_TARGET").unwrap();
    let target = targets::named(&name).unwrap();
    if let Some(folder) = std::env::var_os("TANDEM_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:03}")), seed).unwrap();
        }
    }
    READER.set(Some((target.open)()));
}

fuzz_target!(init: open(), |input: &[u8]| {
    READER.with_borrow_mut(|reader| reader.as_mut().unwrap()(input));
});
