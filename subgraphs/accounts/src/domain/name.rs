//! The name of a customer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::violation::{Path, Violation};

/// A person's name. Texts are kept as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// Such as `Dr.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Required.
    pub first_name: String,
    /// The names between first and last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub middle_name: Option<String>,
    /// Required.
    pub last_name: String,
    /// Such as `Jr.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
}

impl Name {
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let path = Path::part("name");
        path.optional("title", self.title.as_ref())?;
        path.required("firstName", &self.first_name)?;
        path.optional("middleName", self.middle_name.as_ref())?;
        path.required("lastName", &self.last_name)?;
        path.optional("suffix", self.suffix.as_ref())
    }
}
