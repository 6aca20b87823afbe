//! Lets multipart clients see each event of a subscription at once.
//!
//! The router writes a part's boundary in front of the part alone. A client knows that a part has ended when it sees the
//! next boundary, which comes with the next event or heartbeat, up to 10 s later. Here the boundary follows its part.

use hive_router::ntex::http::header;
use hive_router::ntex::util::{Bytes, BytesMut};
use hive_router::ntex::web::WebResponse;

use super::outgoing::each_chunk;

/// A multipart response whose parts end at once; others as they are.
pub(super) fn with_prompt_parts(response: WebResponse) -> WebResponse {
    match boundary(&response) {
        Some(boundary) => {
            let mut boundaries = Boundaries::new(boundary);
            each_chunk(response, move |chunk| boundaries.move_up(chunk))
        }
        None => response,
    }
}

/// The boundary between the parts of a multipart response.
fn boundary(response: &WebResponse) -> Option<String> {
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)?
        .to_str()
        .ok()?;
    let parameters = content_type.strip_prefix("multipart/mixed;")?;
    let boundary = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(format!("--{}", boundary.trim_matches('"')))
}

/// Moves each boundary from the chunk that begins with it to the end of the chunk before.
struct Boundaries {
    boundary: String,
    /// Whether the next part's boundary was written already.
    written: bool,
}

impl Boundaries {
    fn new(boundary: String) -> Self {
        Self {
            boundary,
            written: false,
        }
    }

    fn move_up(&mut self, chunk: Bytes) -> Bytes {
        let mut rest = chunk.as_ref();
        if self.written
            && let Some(without) = rest.strip_prefix(self.boundary.as_bytes())
        {
            rest = without;
            self.written = false;
        }
        // A part's head ends with an empty line, its JSON with one line break.
        let part_ends = rest.ends_with(b"\r\n") && !rest.ends_with(b"\r\n\r\n");
        if !part_ends && rest.len() == chunk.len() {
            return chunk;
        }
        let mut moved = BytesMut::with_capacity(rest.len() + self.boundary.len());
        moved.extend_from_slice(rest);
        if part_ends {
            moved.extend_from_slice(self.boundary.as_bytes());
            self.written = true;
        }
        moved.freeze()
    }
}
