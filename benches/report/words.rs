//! The words behind `cargo bench --bench NAME --`, which say how much of a benchmark runs, and on what. A word that means nothing ends it: what was
//! asked for would else be left out in silence, after minutes of something else.

#![allow(dead_code)] // each benchmark uses some of it

/// Stands for any number where words are listed.
pub const A_NUMBER: &str = "a number";

/// Words that all mean something.
#[derive(Debug)]
pub struct Words(Vec<String>);

impl Words {
    /// Those that were given, each of which has to be one of these.
    pub fn among(known: &[&str]) -> Self {
        let is_number = |word: &str| known.contains(&A_NUMBER) && word.parse::<usize>().is_ok();
        Self::checked("one of", known, |word| {
            known.contains(&word) || is_number(word)
        })
    }

    /// Those that were given, each of which has to stand in one of these names.
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

    /// Whether there are none, and so all runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them.
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|given| given == word)
    }

    /// Whether what has this name runs: all does if there are no words, else that in whose name one of them stands.
    pub fn wants(&self, name: &str) -> bool {
        self.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }

    /// The first number among them.
    pub fn number(&self) -> Option<usize> {
        self.0.iter().find_map(|word| word.parse().ok())
    }
}

/// The words as they were given, without the flag that cargo adds.
pub fn given() -> Vec<String> {
    std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect()
}
