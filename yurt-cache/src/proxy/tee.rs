//! Passes a body on and keeps a copy of it for later, if it is not too long.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::body::{self, Body};
use crate::codec::Inflate;

/// Passes `body` on; when it has ended well within `limit` bytes, `done` gets all of it.
///
/// `length` is what the sender announced: who passes the bytes on may not ask for the end behind them.
pub(crate) fn tee(
    body: Body,
    length: Option<usize>,
    limit: usize,
    done: impl FnOnce(Bytes) + Send + 'static,
) -> Body {
    let copying = Copying {
        body,
        copy: Some((BytesMut::new(), done)),
        length,
        limit,
    };
    let frames = stream::unfold(copying, |mut copying| async move {
        let frame = copying.next().await?;
        Some((frame, copying))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Copying<F> {
    body: Body,
    copy: Option<(BytesMut, F)>,
    length: Option<usize>,
    limit: usize,
}

impl<F: FnOnce(Bytes)> Copying<F> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, body::BoxError>> {
        let frame = self.body.frame().await;
        match &frame {
            None => self.finish(),
            Some(Err(_)) => self.copy = None,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                }
            }
        }
        frame
    }

    fn keep(&mut self, data: &[u8]) {
        let Some((copy, _)) = &mut self.copy else {
            return;
        };
        copy.extend_from_slice(data);
        if copy.len() > self.limit {
            self.copy = None;
        } else if Some(copy.len()) == self.length {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some((copy, done)) = self.copy.take() {
            done(copy.freeze());
        }
    }
}

/// Passes `body` on decompressed.
pub(crate) fn decompress(body: Body, inflate: Inflate) -> Body {
    let chunks = stream::unfold(
        (body, Some(inflate)),
        |(mut body, mut inflate)| async move {
            loop {
                let frame = match body.frame().await {
                    None => {
                        let end = inflate.take()?.finish();
                        return end.err().map(|error| (Err(error.into()), (body, None)));
                    }
                    Some(Err(error)) => return Some((Err(error), (body, None))),
                    Some(Ok(frame)) => frame,
                };
                let Ok(chunk) = frame.into_data() else {
                    continue;
                };
                let mut plain = BytesMut::new();
                let pushed = inflate.as_mut()?.push(&chunk, &mut |bytes: &[u8]| {
                    plain.extend_from_slice(bytes);
                    Ok::<(), std::io::Error>(())
                });
                match pushed {
                    Err(error) => {
                        return Some((Err(error.either(|error| error).into()), (body, None)));
                    }
                    Ok(()) if plain.is_empty() => {}
                    Ok(()) => return Some((Ok(Frame::data(plain.freeze())), (body, inflate))),
                }
            }
        },
    );
    StreamBody::new(chunks).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Two chunks, and an end that may or may not be asked for.
    fn body() -> Body {
        let chunks = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let frames = chunks.map(|chunk| Ok::<_, body::BoxError>(Frame::data(chunk)));
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn the_copy_is_whole_whether_or_not_the_end_is_asked_for() {
        for (length, frames) in [(Some(6), 2), (None, 3), (Some(6), 3)] {
            let (done, copied) = mpsc::channel();
            let mut body = tee(body(), length, 6, move |copy| done.send(copy).unwrap());
            for _ in 0..frames {
                body.frame().await;
            }
            assert_eq!(
                copied.try_recv().unwrap(),
                "onetwo",
                "{length:?} after {frames}"
            );
            assert!(copied.try_recv().is_err(), "once");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_breaks_is_not_copied() {
        let (done, copied) = mpsc::channel();
        let mut short = tee(body(), None, 5, move |copy| done.send(copy).unwrap());
        while short.frame().await.is_some() {}
        assert!(copied.try_recv().is_err());
    }
}
