//! An index that the storage library forgot.
//!
//! Record headers are a table without a key: reading one record's headers looks at those of all records ever stored.

use std::path::Path;

const HEADERS_BY_RECORD: &str =
    "create index if not exists header_by_record on header (topition, offset_id)";

/// Makes the index if it is missing. The storage has made its tables by then.
///
/// # Errors
///
/// When the file cannot be opened or written.
pub(super) async fn ensure(file: &Path) -> Result<(), libsql::Error> {
    let database = libsql::Builder::new_local(file).build().await?;
    database
        .connect()?
        .execute(HEADERS_BY_RECORD, ())
        .await
        .map(drop)
}
