//! The words after `cargo bench --bench NAME --`. They select the parts of a benchmark and the servers. An unknown word
//! ends the run, because the benchmark would otherwise silently run something else for minutes.

#![allow(dead_code)] // each benchmark uses some of it

/// Stands for any number in a list of words.
pub const A_NUMBER: &str = "a number";

/// Words that are all known.
#[derive(Debug)]
pub struct Words(Vec<String>);

impl Words {
    /// The given words. Each must be one of these.
    pub fn among(known: &[&str]) -> Self {
        let is_number = |word: &str| known.contains(&A_NUMBER) && word.parse::<usize>().is_ok();
        Self::checked("one of", known, |word| {
            known.contains(&word) || is_number(word)
        })
    }

    /// The given words. Each must be contained in one of these names.
    pub fn within(names: &[&str]) -> Self {
        Self::checked("what stands in one of", names, |word| {
            names.iter().any(|name| name.contains(word))
        })
    }

    fn checked(how: &str, known: &[&str], is_right: impl Fn(&str) -> bool) -> Self {
        let words = given();
        if let Some(word) = words.iter().find(|word| !is_right(word)) {
            eprintln!(
                "`{word}` means nothing here: it has to be {how}: {}",
                known.join(" | ")
            );
            std::process::exit(2);
        }
        Self(words)
    }

    /// Whether there are no words, so that everything runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this word was given.
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|given| given == word)
    }

    /// Whether the part with this name runs: always if there are no words, otherwise if its name contains one of them.
    pub fn wants(&self, name: &str) -> bool {
        self.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }

    /// The first number among the words.
    pub fn number(&self) -> Option<usize> {
        self.0.iter().find_map(|word| word.parse().ok())
    }
}

/// The words as given, without the flag that cargo adds.
pub fn given() -> Vec<String> {
    std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect()
}
