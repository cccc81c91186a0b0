//! What a session's own messages are for, and how many bytes they take.

use yurt_core::transport::Traffic;

use crate::wire::Frame;

/// The bytes of a session that are no stream's.
#[derive(Debug, Default)]
pub(super) struct Purposes {
    pub(super) keep_alive: Traffic,
    pub(super) control: Traffic,
}

impl Purposes {
    /// Encodes a frame that is to be sent.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let before = out.len();
        frame.encode(out);
        self.of(Some(frame)).sent += (out.len() - before) as u64;
    }

    /// Counts a frame that was received, or what a later version says.
    pub(super) fn received(&mut self, frame: Option<&Frame>, bytes: usize) {
        self.of(frame).received += bytes as u64;
    }

    fn of(&mut self, frame: Option<&Frame>) -> &mut Traffic {
        match frame {
            Some(Frame::Ping(_) | Frame::Pong(_)) => &mut self.keep_alive,
            _ => &mut self.control,
        }
    }
}
