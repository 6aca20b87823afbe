//! Documents that requests name by their hash.
//!
//! There are the trusted documents of a manifest, and automatic persisted queries: documents that Apollo's clients send
//! once and then name.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use apollo_compiler::ast::{Definition, Document};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::error::{Code, RequestError};

/// How many automatic persisted queries are kept: the most recently used ones.
const KEPT: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
/// The longest document that is kept, in bytes.
const LONGEST: usize = 16 * 1_024;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON of the right structure.
    #[error("the manifest of trusted documents cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// It has another format or version.
    #[error(
        "the manifest of trusted documents is of another format: `format` must be apollo-persisted-query-manifest, `version` 1"
    )]
    Format,
    /// A document cannot be parsed.
    #[error("the document that begins with `{0}` cannot be parsed: {1}")]
    Document(String, String),
    /// A document does not have exactly one operation, with a name.
    #[error("the document that begins with `{0}` must have one operation, with a name")]
    OneOperation(String),
    /// An id is not the hash of its document.
    #[error("the document `{0}` of the manifest has another hash: make the manifest anew")]
    Hash(String),
}

/// The documents of a manifest, keyed by the hexadecimal SHA-256 of their text.
#[derive(Debug, Clone, Default)]
pub struct TrustedDocuments {
    documents: Arc<HashMap<String, Arc<str>>>,
    names: Arc<HashSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: Cow<'static, str>,
    version: u32,
    operations: Vec<ManifestOperation>,
}

#[derive(Serialize, Deserialize)]
struct ManifestOperation {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    body: String,
}

const FORMAT: &str = "apollo-persisted-query-manifest";
const VERSION: u32 = 1;

/// Makes a manifest of documents that each have one named operation.
///
/// # Errors
/// When a document cannot be parsed, or does not have exactly one operation, with a name.
pub fn manifest(documents: &[String]) -> Result<String, ManifestError> {
    let mut operations = Vec::new();
    for body in documents {
        let body = body.trim();
        let begin = || body.lines().next().unwrap_or_default().to_owned();
        let parsed = Document::parse(body, "document")
            .map_err(|error| ManifestError::Document(begin(), error.errors.to_string()))?;
        let mut found = parsed
            .definitions
            .iter()
            .filter_map(Definition::as_operation_definition);
        let (Some(operation), None) = (found.next(), found.next()) else {
            return Err(ManifestError::OneOperation(begin()));
        };
        let name = operation
            .name
            .as_ref()
            .ok_or_else(|| ManifestError::OneOperation(begin()))?;
        operations.push(ManifestOperation {
            id: hash(body),
            name: name.to_string(),
            kind: operation.operation_type.name().to_owned(),
            body: body.to_owned(),
        });
    }
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        operations,
    };
    Ok(format!("{}\n", serde_json::to_string_pretty(&manifest)?))
}

impl TrustedDocuments {
    /// Reads a manifest in the format of Apollo's tools:
    /// `{"format": "apollo-persisted-query-manifest", "version": 1, "operations":
    /// [{"id": "<sha256>", "name": "…", "type": "query", "body": "…"}]}`.
    ///
    /// # Errors
    /// When it has another format, or an id is not its document's hash.
    pub fn from_manifest(text: &str) -> Result<Self, ManifestError> {
        let manifest: Manifest = serde_json::from_str(text)?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            return Err(ManifestError::Format);
        }
        let mut documents = HashMap::new();
        let mut names = HashSet::new();
        for operation in manifest.operations {
            if hash(&operation.body) != operation.id {
                return Err(ManifestError::Hash(operation.id));
            }
            documents.insert(operation.id, operation.body.into());
            names.insert(operation.name);
        }
        Ok(Self {
            documents: Arc::new(documents),
            names: Arc::new(names),
        })
    }

    /// The names of all operations.
    #[must_use]
    pub fn names(&self) -> &HashSet<String> {
        &self.names
    }
}

/// The hexadecimal SHA-256 of a document.
#[must_use]
pub fn hash(document: &str) -> String {
    let digest = Sha256::digest(document.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Finds the documents that requests name.
#[derive(Debug)]
pub(super) struct Persisted {
    trusted: TrustedDocuments,
    /// Whether only trusted documents are executed.
    only_trusted: bool,
    sent: Mutex<LruCache<String, Arc<str>>>,
}

#[derive(Deserialize)]
struct Extensions<'a> {
    #[serde(borrow, rename = "persistedQuery")]
    persisted_query: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PersistedQuery {
    version: u32,
    #[serde(rename = "sha256Hash")]
    hash: String,
}

impl Persisted {
    pub(super) fn new(trusted: Option<TrustedDocuments>) -> Self {
        Self {
            only_trusted: trusted.is_some(),
            trusted: trusted.unwrap_or_default(),
            sent: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The document of a request, by its text or by its name.
    ///
    /// # Errors
    /// When no document has this name, when the text does not have the stated hash, or when only trusted documents are
    /// executed and this is not one.
    pub(super) fn document(&self, call: &mut Call) -> Result<Arc<str>, RequestError> {
        let hash_sent = hash_of(call)?;
        let named = call
            .document_id
            .as_deref()
            .map(|id| id.strip_prefix("sha256:").unwrap_or(id));
        if let Some(id) = named.or(hash_sent.as_deref())
            && let Some(document) = self.trusted.documents.get(&id.to_ascii_lowercase())
        {
            // The text that came along must be the same document: a request with two documents is refused.
            return match call.query.take() {
                Some(text) if *text != **document => Err(other_hash(match named {
                    Some(_) => "documentId",
                    None => "extensions.persistedQuery.sha256Hash",
                })),
                _ => Ok(Arc::clone(document)),
            };
        }
        let text = call.query.take();
        if self.only_trusted {
            let is_trusted = text
                .as_deref()
                .and_then(|text| self.trusted.documents.get(&hash(text)));
            return is_trusted.cloned().ok_or_else(|| {
                RequestError::document(
                    "untrusted",
                    Code::Forbidden,
                    "only trusted documents are carried out here, named by `documentId` or `extensions.persistedQuery`",
                )
            });
        }
        if call.document_id.is_some() {
            return Err(RequestError::document(
                "document_id",
                Code::PersistedQueryNotFound,
                "there is no document of this `documentId`",
            ));
        }
        match (text, hash_sent) {
            (Some(text), None) => Ok(text.into()),
            (Some(text), Some(said)) => self.keep(text, &said),
            (None, Some(said)) => self.sent_before(&said),
            (None, None) => Err(RequestError::request(
                r#"`query` is missing: send one request as a JSON object: {"query": "…", "variables": {…}}"#,
            )),
        }
    }

    fn keep(&self, text: String, said: &str) -> Result<Arc<str>, RequestError> {
        if hash(&text) != said.to_ascii_lowercase() {
            return Err(other_hash("extensions.persistedQuery.sha256Hash"));
        }
        let text: Arc<str> = text.into();
        if text.len() <= LONGEST {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.put(said.to_ascii_lowercase(), Arc::clone(&text));
        }
        Ok(text)
    }

    fn sent_before(&self, said: &str) -> Result<Arc<str>, RequestError> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&said.to_ascii_lowercase())
            .cloned()
            .ok_or_else(|| {
                // Apollo's clients look for exactly this text.
                RequestError::document(
                    "persisted_query",
                    Code::PersistedQueryNotFound,
                    "PersistedQueryNotFound",
                )
            })
    }
}

/// The document that was sent is not the one that `field` names.
fn other_hash(field: &str) -> RequestError {
    RequestError::request(format!("the document has another hash than `{field}` says"))
        .with("field", field)
}

fn hash_of(call: &Call) -> Result<Option<String>, RequestError> {
    let Some(raw) = &call.extensions else {
        return Ok(None);
    };
    if !raw.get().contains("persistedQuery") {
        return Ok(None);
    }
    let wrong = || {
        RequestError::request(
            r#"`extensions.persistedQuery` must be {"version": 1, "sha256Hash": "<64 hexadecimal digits>"}"#,
        )
        .with("field", "extensions.persistedQuery")
    };
    let extensions: Extensions<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let Some(query) = extensions.persisted_query.filter(|raw| raw.get() != "null") else {
        return Ok(None);
    };
    let query: PersistedQuery = serde_json::from_str(query.get()).map_err(|_| wrong())?;
    let is_hash = query.hash.len() == 64 && query.hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if query.version == 1 && is_hash {
        Ok(Some(query.hash))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(query: Option<&str>, id: Option<&str>, hash: Option<&str>) -> Call {
        let extensions = hash.map(|hash| {
            RawValue::from_string(format!(
                r#"{{"persistedQuery":{{"version":1,"sha256Hash":"{hash}"}}}}"#
            ))
            .unwrap()
        });
        Call {
            query: query.map(str::to_owned),
            document_id: id.map(str::to_owned),
            extensions,
            ..Call::default()
        }
    }

    #[test]
    fn a_document_that_was_sent_once_may_be_named_afterwards() {
        let persisted = Persisted::new(None);
        let name = hash("{a}");
        let missing = persisted
            .document(&mut call(None, None, Some(&name)))
            .unwrap_err();
        assert_eq!(missing.message(), "PersistedQueryNotFound");
        assert_eq!(
            persisted
                .document(&mut call(Some("{a}"), None, Some(&name)))
                .unwrap()
                .as_ref(),
            "{a}"
        );
        let upper = name.to_ascii_uppercase();
        assert_eq!(
            persisted
                .document(&mut call(None, None, Some(&upper)))
                .unwrap()
                .as_ref(),
            "{a}"
        );
        assert!(
            persisted
                .document(&mut call(Some("{b}"), None, Some(&name)))
                .is_err()
        );
        for wrong in ["", "abc", &"x".repeat(64)] {
            assert!(
                persisted
                    .document(&mut call(Some("{b}"), None, Some(wrong)))
                    .is_err()
            );
        }
    }

    #[test]
    fn no_more_documents_are_kept_than_were_used_last() {
        let persisted = Persisted::new(None);
        for number in 0..KEPT.get() + 5 {
            let text = format!("{{a{number}}}");
            persisted
                .document(&mut call(Some(&text), None, Some(&hash(&text))))
                .unwrap();
        }
        let long = format!("{{a}} #{}", "x".repeat(LONGEST));
        persisted
            .document(&mut call(Some(&long), None, Some(&hash(&long))))
            .unwrap();
        assert_eq!(persisted.sent.lock().unwrap().len(), KEPT.get());
        assert!(
            persisted
                .document(&mut call(None, None, Some(&hash(&long))))
                .is_err()
        );
    }

    #[test]
    fn where_only_trusted_documents_run_others_are_refused_however_they_come() {
        let manifest = format!(
            r#"{{"format":"apollo-persisted-query-manifest","version":1,"operations":[{{"id":"{}","name":"A","type":"query","body":"{{a}}"}}]}}"#,
            hash("{a}")
        );
        let persisted = Persisted::new(Some(TrustedDocuments::from_manifest(&manifest).unwrap()));
        let name = hash("{a}");
        for mut trusted in [
            call(Some("{a}"), None, None),
            call(None, Some(&name), None),
            call(None, Some(&format!("sha256:{name}")), None),
            call(None, None, Some(&name)),
        ] {
            assert_eq!(persisted.document(&mut trusted).unwrap().as_ref(), "{a}");
        }
        for mut other in [
            call(Some("{b}"), None, None),
            call(Some("{b}"), None, Some(&hash("{b}"))),
            call(None, Some("x"), None),
            call(None, None, None),
        ] {
            assert_eq!(
                persisted.document(&mut other).unwrap_err().code(),
                Code::Forbidden
            );
        }
        for mut both in [
            call(Some("{b}"), Some(&name), None),
            call(Some("{b}"), Some(&format!("sha256:{name}")), None),
            call(Some("{b}"), None, Some(&name)),
        ] {
            assert_eq!(
                persisted.document(&mut both).unwrap_err().code(),
                Code::BadUserInput
            );
        }
        for mut both in [
            call(Some("{a}"), Some(&name), None),
            call(Some("{a}"), None, Some(&name)),
        ] {
            assert_eq!(persisted.document(&mut both).unwrap().as_ref(), "{a}");
        }
        assert!(TrustedDocuments::from_manifest(&manifest.replace("{a}", "{b}")).is_err());
    }

    #[test]
    fn a_manifest_is_made_of_documents_with_one_named_operation_each() {
        let made =
            manifest(&["query A { a }\n".to_owned(), "mutation B { b }".to_owned()]).unwrap();
        let trusted = TrustedDocuments::from_manifest(&made).unwrap();
        assert_eq!(trusted.names().len(), 2);
        assert!(made.contains(&hash("query A { a }")) && made.contains("\"mutation\""));
        for wrong in ["{ a }", "query A { a } query B { b }", "{", ""] {
            assert!(manifest(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
