//! The Kafka protocol on the wire: frames, the supported requests and versions, and a check of each request before it
//! is decoded.
//!
//! The crate `kafka-protocol` decodes and encodes the messages. It reserves memory for an array's stated length, so the
//! lengths in a request are checked here first ([`shape`]).

pub(crate) mod frame;
mod requests;
pub(crate) mod shape;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader},
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

pub(crate) use requests::REQUESTS;

/// Bytes of a response before its body: length, correlation id, no tagged fields.
const BEFORE_BODY: usize = 4 + 4 + 1;

/// Why a request closes its connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// It has no header.
    #[error("a request without a header")]
    NoHeader,
    /// The request or the version is not in the list that clients get.
    #[error("request {key} in version {version} is not one that this broker takes")]
    Unsupported {
        /// The request's API key.
        key: i16,
        /// The request's version.
        version: i16,
    },
    /// Its content does not match its stated lengths or types.
    #[error("request {key} in version {version} is malformed: {reason}")]
    Malformed {
        /// The request's API key.
        key: i16,
        /// The request's version.
        version: i16,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer cannot be encoded.
    #[error("the answer to request {key} in version {version} cannot be written: {reason}")]
    Answer {
        /// The request's API key.
        key: i16,
        /// The request's version.
        version: i16,
        /// What is wrong with it.
        reason: String,
    },
}

/// A request of a supported kind and version. The lengths in its body have been checked.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    /// Whether this broker answers the version. If not, only `ApiVersions` is accepted (KIP-511).
    pub(crate) is_supported: bool,
    pub(crate) client: StrBytes,
    correlation: i32,
    body: Bytes,
}

impl Received {
    /// Reads the header of a request and checks the lengths in its body.
    ///
    /// # Errors
    /// If this broker does not support the request, or it is malformed.
    pub(crate) fn read(mut frame: Bytes) -> Result<Self, WireError> {
        let number = |at: usize| {
            let bytes: Option<&[u8; 2]> = frame.get(at..)?.first_chunk();
            bytes.copied().map(i16::from_be_bytes)
        };
        let (key, version) = number(0).zip(number(2)).ok_or(WireError::NoHeader)?;
        let unsupported = WireError::Unsupported { key, version };
        let malformed = |reason: String| WireError::Malformed {
            key,
            version,
            reason,
        };
        let Ok(api) = ApiKey::try_from(key) else {
            return Err(unsupported);
        };
        let Some(request) = REQUESTS.iter().find(|request| request.key == api) else {
            return Err(unsupported);
        };
        let is_supported = request.takes(version);
        if !is_supported {
            if api != ApiKey::ApiVersions {
                return Err(unsupported);
            }
            let correlation = frame.get(4..).and_then(|rest| rest.first_chunk().copied());
            return Ok(Self {
                key: api,
                version: 0,
                is_supported,
                client: StrBytes::new(),
                correlation: correlation.map_or(0, i32::from_be_bytes),
                body: Bytes::new(),
            });
        }
        shape::check_header(&frame, request.is_flexible(version))
            .map_err(|reason| malformed(reason.to_string()))?;
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
            .map_err(|error| malformed(error.to_string()))?;
        shape::check(request, version, &frame).map_err(|reason| malformed(reason.to_string()))?;
        Ok(Self {
            key: api,
            version,
            is_supported,
            client: header.client_id.unwrap_or_default(),
            correlation: header.correlation_id,
            body: frame,
        })
    }

    /// Decodes the request.
    ///
    /// # Errors
    /// If it is malformed.
    pub(crate) fn body<R: Decodable>(&self) -> Result<R, WireError> {
        let mut body = self.body.clone();
        let request = R::decode(&mut body, self.version).map_err(|error| WireError::Malformed {
            key: self.key as i16,
            version: self.version,
            reason: error.to_string(),
        })?;
        Ok(request)
    }

    /// The identity of the request, with which the answer can be encoded after the request was dropped.
    pub(crate) fn asker(&self) -> Asker {
        Asker {
            key: self.key,
            version: self.version,
            correlation: self.correlation,
        }
    }
}

/// The request that an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    correlation: i32,
}

impl Asker {
    /// The answer as a frame.
    ///
    /// # Errors
    /// If the answer does not fit the version, which is a bug of this broker.
    pub(crate) fn answer<R: Encodable + HeaderVersion>(
        &self,
        answer: &R,
    ) -> Result<Bytes, WireError> {
        let failed = |reason: String| WireError::Answer {
            key: self.key as i16,
            version: self.version,
            reason,
        };
        let size = answer
            .compute_size(self.version)
            .map_err(|error| failed(error.to_string()))?;
        let mut frame = BytesMut::with_capacity(size + BEFORE_BODY);
        frame.put_i32(0);
        frame.put_i32(self.correlation);
        if R::header_version(self.version) >= 1 {
            frame.put_u8(0);
        }
        answer
            .encode(&mut frame, self.version)
            .map_err(|error| failed(error.to_string()))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| failed(error.to_string()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }
}
