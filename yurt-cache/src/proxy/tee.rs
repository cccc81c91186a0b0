//! Passes a body on and keeps a copy of it for later, if it is not too long.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::body::{self, Body};
use crate::codec::Inflate;

/// Passes `body` on; when it has ended well within `limit` bytes, `done` gets all of it.
pub(crate) fn tee(body: Body, limit: usize, done: impl FnOnce(Bytes) + Send + 'static) -> Body {
    let copying = Copying {
        body,
        copy: Some((BytesMut::new(), done)),
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
    limit: usize,
}

impl<F: FnOnce(Bytes)> Copying<F> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, body::BoxError>> {
        let frame = self.body.frame().await;
        match &frame {
            None => {
                if let Some((copy, done)) = self.copy.take() {
                    done(copy.freeze());
                }
            }
            Some(Err(_)) => self.copy = None,
            Some(Ok(frame)) => {
                if let (Some(data), Some((copy, _))) = (frame.data_ref(), &mut self.copy) {
                    copy.extend_from_slice(data);
                    if copy.len() > self.limit {
                        self.copy = None;
                    }
                }
            }
        }
        frame
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
