//! Inputs that are mutations of a committed corpus. The same seed gives the same inputs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a target runs, unless `TANDEM_FUZZ_SECONDS` is set.
const SECONDS: u64 = 2;
/// The most inputs per target, so that a fast machine does not do more than is useful.
const MOST: usize = 200_000;
/// The largest input, in bytes.
const LARGEST: usize = 64 * 1024;

/// Tokens that often break readers. They are inserted anywhere.
const TOKENS: [&[u8]; 40] = [
    b"\0",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x80\xae",
    b"\x1b[31m",
    b"\r\n",
    b"\r\n\r\n",
    b"\\u0000",
    b"\\ud83d",
    b"\\u{110000}",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b",",
    b":",
    b"null",
    b"true",
    b"NaN",
    b"-0",
    b"1e999",
    b"1e-999",
    b"0.1e1",
    b"9223372036854775808",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"...a",
    b"@skip(if:true)",
    b"__typename",
    b"fragment a on Query{...a}",
    b"$a:ID!",
    b"\"\"\"",
    b"#",
    b"=",
];

/// The inputs of one target.
pub struct Corpus {
    entries: Vec<Vec<u8>>,
    random: Random,
    until: Instant,
    tried: usize,
}

impl Corpus {
    /// These inputs, and mutations of them.
    #[must_use]
    pub fn of(target: &str, entries: Vec<Vec<u8>>) -> Self {
        assert!(!entries.is_empty(), "{target}: no inputs");
        let number = |name: &str, otherwise| {
            std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
        };
        let seed = number("TANDEM_FUZZ_SEED", 1);
        eprintln!("{target}: {} inputs, seed {seed}", entries.len());
        Self {
            entries,
            random: Random(seed),
            until: Instant::now() + Duration::from_secs(number("TANDEM_FUZZ_SECONDS", SECONDS)),
            tried: 0,
        }
    }
}

/// The committed inputs in `corpus/FOLDER`, in the order of their names. In a `.txt` file each line is an input.
#[must_use]
pub(crate) fn committed(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    // A target whose seeds are derived from other data has no folder until an input is found for it.
    let Ok(files) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let bytes = fs::read(file).unwrap();
            if file.extension().is_none_or(|kind| kind != "txt") {
                return vec![bytes];
            }
            bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(<[u8]>::to_vec)
                .collect()
        })
        .collect()
}

impl Iterator for Corpus {
    type Item = Vec<u8>;

    /// First each entry unchanged, then mutations until the time is over.
    fn next(&mut self) -> Option<Vec<u8>> {
        let at = self.tried;
        self.tried += 1;
        if let Some(entry) = self.entries.get(at) {
            return Some(entry.clone());
        }
        if at >= MOST || Instant::now() >= self.until {
            return None;
        }
        let mut input = self.random.one_of(&self.entries).clone();
        for _ in 0..=self.random.below(4) {
            self.mutate(&mut input);
        }
        input.truncate(LARGEST);
        Some(input)
    }
}

impl Corpus {
    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        let length = self.random.below(16.min(input.len() - at) + 1);
        match self.random.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.byte();
                }
            }
            2 => drop(input.drain(at..at + length)),
            3 => input.truncate(at),
            4 => {
                let again = input[at..at + length].to_vec();
                for _ in 0..=self.random.below(20) {
                    input.splice(at..at, again.iter().copied());
                }
            }
            5 => {
                let other = self.random.one_of(&self.entries);
                let begin = self.random.below(other.len() + 1);
                let part = other[begin..].to_vec();
                input.truncate(at);
                input.extend(part);
            }
            6 => {
                let byte = self.random.byte();
                input.insert(at, byte);
            }
            _ => {
                let token = self.random.below(TOKENS.len());
                let end = if self.random.below(2) == 0 {
                    at
                } else {
                    at + length
                };
                input.splice(at..end, TOKENS[token].iter().copied());
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). The same seed gives the same
/// choices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a positive bound.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
