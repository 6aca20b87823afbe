//! Reads request bodies within a size and a time limit, and decodes them within the same size.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::io::Read;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;

use super::arriving::{Arriving, NoRoom, TOO_MUCH_ARRIVING};
use super::media::only;

/// This many more bytes of a body that is too large are read, because some clients read no answer until they have
/// written their whole request.
const READ_ON: usize = 16 * 1024 * 1024;
/// For at most this long.
const READ_ON_TIME: Duration = Duration::from_secs(5);
/// This many bytes are read in each `READ_ON_PAUSE`, which is 32 MB a second. Reading only to drop takes processor time
/// that others need.
const READ_ON_AT_ONCE: usize = 64 * 1024;
const READ_ON_PAUSE: Duration = Duration::from_millis(2);
/// After decoding this many bytes, other tasks run.
const DECODED_AT_ONCE: usize = 32 * 1024;
/// A decoded body larger than this may have at most `DENSEST` bytes for each encoded one. JSON grows 20 times, and a
/// single repeated byte a thousand times.
const DENSE_FROM: usize = 64 * 1024;
const DENSEST: usize = 100;

/// The bounds of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// The most bytes, also after decoding.
    pub(crate) size: usize,
    /// From the end of the request's head to the end of its body.
    pub(crate) time: Duration,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyRefused {
    #[error("the body is larger than the {0} bytes that are taken")]
    TooLarge(usize),
    #[error("the body did not arrive within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("the body broke off")]
    Broken,
    #[error("the body becomes more than {DENSEST} times as large when it is decoded")]
    TooDense,
    #[error("the body cannot be decoded as its `content-encoding` says")]
    Undecodable,
    #[error(
        "this `content-encoding` is not known: send the body as it is, or with gzip or deflate"
    )]
    UnknownEncoding,
    #[error("{TOO_MUCH_ARRIVING}")]
    NoRoom,
}

impl From<NoRoom> for BodyRefused {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl BodyRefused {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::TooDense => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Undecodable => StatusCode::BAD_REQUEST,
            Self::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoRoom => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyRefused> {
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(Encoding::Identity);
    }
    let said = only(headers, &header::CONTENT_ENCODING).ok_or(BodyRefused::UnknownEncoding)?;
    match said.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        _ => Err(BodyRefused::UnknownEncoding),
    }
}

/// Reads a body to its end. `arriving` counts the bytes that are buffered. A refusal is returned only after the client
/// has written its body, within bounds: only then does it read the answer.
///
/// # Errors
/// When the body is too large, too slow, broken, or in an unknown encoding, and when there is no room for it.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limits: BodyLimits,
    arriving: &mut Arriving,
) -> Result<Bytes, BodyRefused>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut body = body;
    let read = async {
        let encoding = encoding(headers)?;
        if declared(headers).is_some_and(|length| length > limits.size) {
            return Err(BodyRefused::TooLarge(limits.size));
        }
        let bytes = whole(&mut body, limits.size, arriving).await?;
        decode(bytes, encoding, limits.size, arriving).await
    };
    let read = tokio::time::timeout(limits.time, read)
        .await
        .unwrap_or(Err(BodyRefused::TooSlow(limits.time)));
    let waits_for_the_word = headers.contains_key(header::EXPECT);
    if let Err(BodyRefused::TooLarge(_) | BodyRefused::UnknownEncoding | BodyRefused::NoRoom) = read
        && !waits_for_the_word
    {
        let _ = tokio::time::timeout(READ_ON_TIME, read_on(&mut body)).await;
    }
    read
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    only(headers, &header::CONTENT_LENGTH)?.parse().ok()
}

async fn whole<B>(body: &mut B, limit: usize, arriving: &mut Arriving) -> Result<Bytes, BodyRefused>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| BodyRefused::Broken)?.into_data() else {
            continue;
        };
        let so_far = rest.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + part.len() > limit {
            return Err(BodyRefused::TooLarge(limit));
        }
        arriving.hold(so_far + part.len())?;
        match &mut rest {
            None if first.is_empty() => first = part,
            None => {
                let mut joined = BytesMut::with_capacity(first.len() + part.len());
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&part);
                rest = Some(joined);
            }
            Some(joined) => joined.extend_from_slice(&part),
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

async fn read_on<B>(body: &mut B)
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (mut read, mut since_pause) = (0, 0);
    while read < READ_ON
        && let Some(Ok(frame)) = body.frame().await
    {
        let length = frame.data_ref().map_or(0, Bytes::len);
        read += length;
        since_pause += length;
        if since_pause >= READ_ON_AT_ONCE {
            since_pause = 0;
            tokio::time::sleep(READ_ON_PAUSE).await;
        }
    }
}

async fn decode(
    bytes: Bytes,
    encoding: Encoding,
    limit: usize,
    arriving: &mut Arriving,
) -> Result<Bytes, BodyRefused> {
    let encoded = bytes.as_ref();
    // Both the received and the decoded bytes are buffered.
    let mut hold = |decoded: usize| arriving.hold(encoded.len() + decoded);
    let taken = |rest: &[u8]| encoded.len() - rest.len();
    match encoding {
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip => {
            let decoder = MultiGzDecoder::new(encoded);
            inflated(decoder, |it| taken(it.get_ref()), limit, &mut hold).await
        }
        // Two formats are called `deflate`. The one with a header is the standard (RFC 9110, section 8.4.1.2), and the
        // other one is in use too.
        Encoding::Deflate => {
            let decoder = ZlibDecoder::new(encoded);
            let read = inflated(decoder, |it| taken(it.get_ref()), limit, &mut hold).await;
            if read != Err(BodyRefused::Undecodable) {
                return read;
            }
            let decoder = DeflateDecoder::new(encoded);
            inflated(decoder, |it| taken(it.get_ref()), limit, &mut hold).await
        }
    }
}

/// Decodes a body piece by piece. `taken` returns how many encoded bytes the decoder has read; `hold` counts the
/// decoded ones.
async fn inflated<D: Read>(
    mut decoder: D,
    taken: impl Fn(&D) -> usize,
    limit: usize,
    hold: &mut impl FnMut(usize) -> Result<(), NoRoom>,
) -> Result<Bytes, BodyRefused> {
    let mut written = Vec::new();
    loop {
        let before = written.len();
        let most = DECODED_AT_ONCE.min(limit.saturating_add(1) - before);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        (&mut decoder)
            .take(most)
            .read_to_end(&mut written)
            .map_err(|_| BodyRefused::Undecodable)?;
        if written.len() > limit {
            return Err(BodyRefused::TooLarge(limit));
        }
        if written.len() == before {
            return Ok(written.into());
        }
        if written.len() > DENSE_FROM && written.len() / DENSEST > taken(&decoder) {
            return Err(BodyRefused::TooDense);
        }
        hold(written.len())?;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use axum::body::Body;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::http::admission::{Client, Counter, Most};

    const LIMITS: BodyLimits = BodyLimits {
        size: 1_000,
        time: Duration::from_millis(500),
    };

    /// Room for any body.
    fn room() -> Arriving {
        room_of(usize::MAX)
    }

    fn room_of(bytes: usize) -> Arriving {
        let most = Most {
            of_all: bytes,
            of_address: bytes,
            of_subject: bytes,
        };
        Arriving::new(&Counter::new("test", most), Client::named("7"))
    }

    async fn read_as(encoding: Option<&'static str>, body: Vec<u8>) -> Result<Bytes, BodyRefused> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        }
        read(&headers, Body::from(body), LIMITS, &mut room()).await
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn a_body_is_decoded_within_the_limit() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(b"{}").unwrap();
        for (encoding, body) in [
            (None, b"{}".to_vec()),
            (Some("identity"), b"{}".to_vec()),
            (Some("GZIP"), gzip(b"{}")),
            (Some("deflate"), zlib.finish().unwrap()),
        ] {
            assert_eq!(read_as(encoding, body).await.unwrap(), "{}");
        }
        let bomb = gzip(&vec![b' '; 10_000_000]);
        assert!(bomb.len() > LIMITS.size);
        let bomb = gzip(&[b' '; 100_000]);
        assert!(bomb.len() < LIMITS.size);
        assert_eq!(
            read_as(Some("gzip"), bomb).await,
            Err(BodyRefused::TooLarge(1_000))
        );
        assert_eq!(
            read_as(Some("gzip"), b"{}".to_vec()).await,
            Err(BodyRefused::Undecodable)
        );
        for unknown in ["br", "zstd", "gzip, gzip", "x"] {
            assert_eq!(
                read_as(Some(unknown), b"{}".to_vec()).await,
                Err(BodyRefused::UnknownEncoding)
            );
        }
    }

    #[tokio::test]
    async fn what_becomes_larger_than_honest_text_does_is_refused_before_it_is_decoded_to_the_limit()
     {
        let limits = BodyLimits {
            size: 10_000_000,
            ..LIMITS
        };
        let read = async |body: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
            read(&headers, Body::from(body), limits, &mut room()).await
        };
        assert_eq!(
            read(gzip(&vec![b' '; 1_000_000])).await,
            Err(BodyRefused::TooDense)
        );
        // Repetitive but honest text, and a small body of any kind.
        let ids: Vec<String> = (0..50_000).map(|id| format!("customer-{id}")).collect();
        let ids = serde_json::to_vec(&ids).unwrap();
        assert_eq!(read(gzip(&ids)).await.unwrap(), ids);
        let spaces = vec![b' '; DENSE_FROM];
        assert_eq!(read(gzip(&spaces)).await.unwrap(), spaces);
    }

    #[tokio::test]
    async fn while_a_body_is_decoded_others_have_their_turn() {
        let ids: Vec<String> = (0..50_000).map(|id| format!("customer-{id}")).collect();
        let encoded = gzip(&serde_json::to_vec(&ids).unwrap());
        let mut room = room();
        let decoding = decode(encoded.into(), Encoding::Gzip, 10_000_000, &mut room);
        tokio::pin!(decoding);
        let mut turns = 0;
        while futures::poll!(&mut decoding).is_pending() {
            turns += 1;
        }
        assert!(turns > 20, "{turns}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up() {
        let parts = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Some((Ok::<_, std::convert::Infallible>("x"), ()))
        });
        let body = Body::from_stream(parts);
        let refused = read(&HeaderMap::new(), body, LIMITS, &mut room())
            .await
            .unwrap_err();
        assert_eq!(refused, BodyRefused::TooSlow(LIMITS.time));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_only_to_be_dropped_is_read_slowly_and_to_its_end() {
        const PARTS: usize = 128;
        let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(PARTS));
        let counted = std::sync::Arc::clone(&left);
        let parts = std::iter::repeat_n(vec![b' '; 64 * 1024], PARTS).inspect(move |_| {
            counted.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        });
        let body = Body::from_stream(futures::stream::iter(
            parts.map(Ok::<_, std::convert::Infallible>),
        ));
        let begun = tokio::time::Instant::now();
        let refused = read(&HeaderMap::new(), body, LIMITS, &mut room())
            .await
            .unwrap_err();
        assert_eq!(refused, BodyRefused::TooLarge(1_000));
        assert_eq!(left.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert!(begun.elapsed() >= Duration::from_millis(250));
        assert!(begun.elapsed() < READ_ON_TIME);
    }

    #[tokio::test]
    async fn a_body_for_which_there_is_no_room_is_refused_as_it_comes_and_as_it_is_decoded() {
        let limits = BodyLimits {
            size: 1_000_000,
            ..LIMITS
        };
        let ids: Vec<String> = (0..20_000).map(|id| format!("customer-{id}")).collect();
        let ids = serde_json::to_vec(&ids).unwrap();
        let mut gzipped = HeaderMap::new();
        gzipped.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        for (headers, body, needed) in [
            (HeaderMap::new(), ids.clone(), ids.len()),
            (gzipped, gzip(&ids), ids.len()),
        ] {
            let read = async |room: usize| {
                let parts = body.chunks(1_000).map(Bytes::copy_from_slice);
                let parts: Vec<_> = parts.map(Ok::<_, std::convert::Infallible>).collect();
                let parts = Body::from_stream(futures::stream::iter(parts));
                read(&headers, parts, limits, &mut room_of(room)).await
            };
            assert_eq!(read(needed / 2).await, Err(BodyRefused::NoRoom));
            assert_eq!(read(2 * needed + 128 * 1024).await.unwrap(), ids);
        }
    }

    #[tokio::test]
    async fn a_body_in_parts_is_joined() {
        let parts = ["{\"a\"", ":", "1}"].map(Ok::<_, std::convert::Infallible>);
        let body = Body::from_stream(futures::stream::iter(parts));
        assert_eq!(
            read(&HeaderMap::new(), body, LIMITS, &mut room())
                .await
                .unwrap(),
            "{\"a\":1}"
        );
        let parts = std::iter::repeat_n(Ok::<_, std::convert::Infallible>("xxxxxxxxxx"), 101);
        let body = Body::from_stream(futures::stream::iter(parts));
        assert_eq!(
            read(&HeaderMap::new(), body, LIMITS, &mut room()).await,
            Err(BodyRefused::TooLarge(1_000))
        );
    }
}
