//! Parses the Prometheus text format that this process's own recorders write.

use std::collections::BTreeMap;

/// One line of the Prometheus text format.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    /// What follows the family's name in the line: `_bucket`, `_sum`, `_count` or nothing.
    pub(super) suffix: &'a str,
    pub(super) labels: Vec<(&'a str, String)>,
    pub(super) value: f64,
}

/// The samples of each metric family. Our own recorders wrote the text, so unexpected lines are skipped, not reported.
pub(super) fn families(rendered: &str) -> BTreeMap<&str, Vec<Sample<'_>>> {
    let mut families: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    let mut current = "";
    for line in rendered.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            current = declared.split(' ').next().unwrap_or_default();
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, parse_labels(labels.trim_end_matches('}'))),
            None => (series, Vec::new()),
        };
        let Some(suffix) = name.strip_prefix(current) else {
            continue;
        };
        let Ok(value) = value.parse() else { continue };
        families.entry(current).or_default().push(Sample {
            suffix,
            labels,
            value,
        });
    }
    families
}

/// Parses `a="x",b="y"`, where a value may contain escaped quotes, backslashes and line breaks.
fn parse_labels(mut text: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    end = index + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => {}
                },
                plain => value.push(plain),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        text = rest.get(end..).unwrap_or_default();
    }
    labels
}
