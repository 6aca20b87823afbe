//! Checks the lengths that a request states against its size, without allocating.

use super::requests::{Field, Kind, Request};

/// Most elements of all arrays and tagged fields in one request. The largest reasonable request names every partition
/// that may exist.
const MOST_ELEMENTS: usize = 100_000;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShapeError {
    /// A length or a number extends past the end of the request.
    #[error("it is cut off")]
    CutOff,
    /// A length is less than the value for null.
    #[error("a length is negative")]
    Negative,
    /// A number has more bytes than allowed.
    #[error("a number is too long")]
    LongNumber,
    /// It has more elements than allowed.
    #[error("it has more than {MOST_ELEMENTS} elements and tagged fields")]
    TooMany,
}

/// Checks the header of a request: key, version, correlation id, client id, and tagged fields if the version is
/// flexible.
pub(super) fn check_header(frame: &[u8], is_flexible: bool) -> Result<(), ShapeError> {
    let mut walk = Walk {
        rest: frame,
        // The client id has the old form in all versions.
        is_flexible: false,
        version: 0,
        elements: 0,
    };
    walk.skip(8)?;
    walk.field(&Kind::Text)?;
    if is_flexible {
        walk.tags()?;
    }
    Ok(())
}

/// Checks the body of a request. Returns how many bytes follow it, which are ignored, as in Kafka: librdkafka sends
/// three when it requests all topics.
pub(super) fn check(request: &Request, version: i16, body: &[u8]) -> Result<usize, ShapeError> {
    let mut walk = Walk {
        rest: body,
        is_flexible: request.is_flexible(version),
        version,
        elements: 0,
    };
    walk.structure(request.body)?;
    Ok(walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    is_flexible: bool,
    version: i16,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        for field in fields {
            if (field.from..=field.to).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        if self.is_flexible {
            self.tags()?;
        }
        Ok(())
    }

    fn field(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text => {
                let length = match self.is_flexible {
                    true => self.compact_length()?,
                    false => self.short_length()?,
                };
                self.skip(length)
            }
            Kind::Bytes => {
                let length = self.length()?;
                self.skip(length)
            }
            Kind::Array(fields) => self.array(|walk| walk.structure(fields)),
            Kind::List(field) => self.array(|walk| walk.field(&field.kind)),
        }
    }

    fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), ShapeError>,
    ) -> Result<(), ShapeError> {
        let length = self.length()?;
        self.elements = self.elements.saturating_add(length);
        if self.elements > MOST_ELEMENTS {
            return Err(ShapeError::TooMany);
        }
        for _ in 0..length {
            element(self)?;
        }
        Ok(())
    }

    /// Tagged fields: their number, and for each its tag, its length and its bytes.
    fn tags(&mut self) -> Result<(), ShapeError> {
        let count = self.number()?;
        // The decoder keeps each of them in memory, like an element.
        self.elements = self.elements.saturating_add(count as usize);
        if self.elements > MOST_ELEMENTS {
            return Err(ShapeError::TooMany);
        }
        for _ in 0..count {
            self.number()?;
            let length = self.number()? as usize;
            self.skip(length)?;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeError::CutOff)?;
        Ok(())
    }

    /// The length of bytes or of an array; 0 for null.
    fn length(&mut self) -> Result<usize, ShapeError> {
        if self.is_flexible {
            return self.compact_length();
        }
        let (length, rest) = self.rest.split_first_chunk().ok_or(ShapeError::CutOff)?;
        self.rest = rest;
        none_or(i32::from_be_bytes(*length))
    }

    /// The length of a string in versions that are not flexible; 0 for null.
    fn short_length(&mut self) -> Result<usize, ShapeError> {
        let (length, rest) = self.rest.split_first_chunk().ok_or(ShapeError::CutOff)?;
        self.rest = rest;
        none_or(i32::from(i16::from_be_bytes(*length)))
    }

    /// A length in flexible versions. It is encoded as one more than its value, with 0 for null.
    fn compact_length(&mut self) -> Result<usize, ShapeError> {
        Ok(self.number()?.saturating_sub(1) as usize)
    }

    /// An unsigned number with seven bits per byte, lowest first, at most 32 bits.
    fn number(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ShapeError::CutOff)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| ShapeError::LongNumber);
            }
        }
        Err(ShapeError::LongNumber)
    }
}

fn none_or(length: i32) -> Result<usize, ShapeError> {
    match length {
        -1 => Ok(0),
        length => usize::try_from(length).map_err(|_| ShapeError::Negative),
    }
}

#[cfg(test)]
pub(crate) mod tests;
