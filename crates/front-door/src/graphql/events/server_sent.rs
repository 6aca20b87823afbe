//! A parser for server-sent events (HTML, section 9.2).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The longest single event, in bytes.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// Parses server-sent events (HTML, section 9.2). It returns the data of each and skips comments.
#[derive(Default)]
pub(super) struct Parser {
    rest: BytesMut,
    pub(super) is_complete: bool,
}

impl Parser {
    pub(super) fn feed(&mut self, chunk: Bytes, events: &mut VecDeque<Bytes>) {
        if self.rest.is_empty()
            && let Some(one) = single(&chunk)
        {
            return self.take(one, events);
        }
        self.rest.extend_from_slice(&chunk);
        while let Some(end) = memchr::memmem::find(&self.rest, b"\n\n") {
            let block = self.rest.split_to(end + 2).freeze();
            self.take(block, events);
        }
        if self.rest.is_empty() {
            // The events share the old buffer, so it is freed together with them.
            self.rest = BytesMut::new();
        }
        if self.rest.len() > LONGEST_EVENT {
            self.is_complete = true;
        }
    }

    fn take(&mut self, block: Bytes, events: &mut VecDeque<Bytes>) {
        let mut data: Option<Bytes> = None;
        let mut begin = 0;
        for line in block.split(|byte| *byte == b'\n') {
            let (at, end) = (begin, begin + line.len());
            begin = end + 1;
            if line == b"event: complete" {
                self.is_complete = true;
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let skipped = 5 + usize::from(value.first() == Some(&b' '));
                let part = block.slice((at + skipped).min(end)..end);
                data = Some(match data {
                    None => part,
                    Some(before) => [before.as_ref(), b"\n", part.as_ref()].concat().into(),
                });
            }
        }
        if !self.is_complete {
            events.extend(data.filter(|data| !data.is_empty()));
        }
    }
}

/// The chunk, if it is exactly one event.
fn single(chunk: &Bytes) -> Option<Bytes> {
    (memchr::memmem::find(chunk, b"\n\n")? + 2 == chunk.len()).then(|| chunk.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_read_however_the_stream_is_cut() {
        let stream = "event: next\ndata: {\"a\":1}\n\n:\n\nevent: next\ndata: {\"b\":\ndata: 2}\n\nevent: complete\ndata:\n\ndata: {\"c\":3}\n\n";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut events = VecDeque::new();
            for chunk in stream.as_bytes().chunks(size) {
                parser.feed(Bytes::copy_from_slice(chunk), &mut events);
            }
            assert_eq!(events, ["{\"a\":1}", "{\"b\":\n2}"], "{size}");
            assert!(parser.is_complete);
        }
    }
}
