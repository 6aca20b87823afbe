//! An aggregate without rules, for tests of stores only.

use serde::{Deserialize, Serialize};

use super::Example;
use tandem_model::aggregate::Aggregate;

/// A state with one list by one field, and one list by two fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    id: String,
    revision: i64,
    owner: String,
    colour: Option<String>,
    note: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    count: u32,
}

impl Aggregate for Sample {
    const NAME: &'static str = "sample";
    const COLLECTION: &'static str = "sample.states";
    const INDEXES: &'static [&'static [&'static str]] = &[&["owner"], &["owner", "colour"]];

    fn id(&self) -> &str {
        &self.id
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn field(&self, name: &str) -> Option<String> {
        match name {
            "owner" => Some(self.owner.clone()),
            "colour" => self.colour.clone(),
            _ => None,
        }
    }
}

impl Example for Sample {
    fn example(id: &str, group: u32) -> Self {
        Self {
            id: id.to_owned(),
            revision: 1,
            owner: format!("owner {group}"),
            colour: Some(format!("colour\0{group} — ü")),
            note: format!("{id} in group {group}"),
            parts: vec![Part {
                name: "wheel".to_owned(),
                count: group,
            }],
        }
    }

    fn changed(&self, group: u32) -> Self {
        let revision = self.revision + 1;
        Self {
            revision,
            note: format!("changed to revision {revision}"),
            ..Self::example(&self.id, group)
        }
    }
}
