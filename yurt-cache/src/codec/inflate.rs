//! Decompresses an answer as it comes, a bounded piece at a time.

use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::write::GzDecoder;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// Compressed bytes that are decompressed at a time: gzip grows at most a thousandfold.
const PIECE: usize = 512;

/// The longest text that is decompressed whole; an OpenAPI description has some megabytes.
const WHOLE: usize = 48 << 20;

/// Passes an answer's bytes on, decompressed if they are gzip.
pub(crate) enum Inflate {
    Plain,
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

/// What ended a push: the bytes were not gzip, or their taker did not want them.
#[derive(Debug)]
pub(crate) enum PushError<E> {
    Inflate(io::Error),
    Taker(E),
}

impl Inflate {
    pub(crate) fn for_encoding(encoding: Option<&HeaderValue>) -> Self {
        match encoding {
            Some(value) if value == "gzip" => Self::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            _ => Self::Plain,
        }
    }

    /// Decompresses the next bytes into `take`.
    pub(crate) fn push<E>(
        &mut self,
        chunk: &[u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        let decoder = match self {
            Self::Plain => return take(chunk).map_err(PushError::Taker),
            Self::Gzip(decoder) => decoder,
        };
        for piece in chunk.chunks(PIECE) {
            decoder
                .write_all(piece)
                .and_then(|()| decoder.flush())
                .map_err(PushError::Inflate)?;
            let plain = decoder.get_mut();
            if !plain.is_empty() {
                take(plain).map_err(PushError::Taker)?;
                plain.clear();
            }
        }
        Ok(())
    }

    /// Checks that the end came.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Gzip(mut decoder) => decoder.try_finish(),
        }
    }
}

impl<E> PushError<E> {
    /// Makes one error of both.
    pub(crate) fn either(self, inflate: impl FnOnce(io::Error) -> E) -> E {
        match self {
            Self::Inflate(error) => inflate(error),
            Self::Taker(error) => error,
        }
    }
}

/// Decompresses a whole text, up to a limit.
pub(crate) fn inflate(encoding: Option<&HeaderValue>, text: &[u8]) -> Option<Bytes> {
    let mut plain = BytesMut::new();
    let mut inflate = Inflate::for_encoding(encoding);
    let pushed = inflate.push(text, &mut |chunk: &[u8]| {
        plain.put_slice(chunk);
        if plain.len() > WHOLE {
            Err(io::Error::other("too long"))
        } else {
            Ok(())
        }
    });
    pushed.ok()?;
    inflate.finish().ok()?;
    Some(plain.freeze())
}

/// Returns whether the caller takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let value = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        value
            .split(',')
            .any(|one| matches!(one.trim(), "gzip" | "*"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(compressed: &[u8], step: usize) -> Result<Vec<u8>, String> {
        let mut inflate = Inflate::for_encoding(Some(&HeaderValue::from_static("gzip")));
        let mut plain = Vec::new();
        for chunk in compressed.chunks(step) {
            let pushed = inflate.push(chunk, &mut |bytes: &[u8]| {
                plain.extend_from_slice(bytes);
                Ok::<(), String>(())
            });
            pushed.map_err(|error| error.either(|error| error.to_string()))?;
        }
        inflate.finish().map_err(|error| error.to_string())?;
        Ok(plain)
    }

    #[test]
    fn what_was_compressed_comes_back_however_it_is_cut() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|number| number.to_le_bytes())
            .collect();
        for step in [1, 7, 4_096, usize::MAX] {
            assert_eq!(inflate(&gzip(&text), step).unwrap(), text, "{step}");
        }
    }

    #[test]
    fn garbage_and_a_missing_end_are_errors() {
        assert!(inflate(b"garbage, not gzip", 5).is_err());
        let whole = gzip(&[7; 10_000]);
        assert!(inflate(&whole[..whole.len() - 12], 64).is_err());
    }
}
