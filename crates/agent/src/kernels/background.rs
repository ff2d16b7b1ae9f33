// SPDX-License-Identifier: Apache-2.0
//! What a kernel prints while nothing is executed: threads, timers and children that print late.

use protocol::agent::Channel;
use protocol::limits::BACKGROUND_OUTPUT_BYTES_MAX;

use crate::outbox::Chunk;

/// Late output, kept until the next execution; beyond its bound the newest is counted and dropped.
#[derive(Default)]
pub(super) struct Background {
    chunks: Vec<Chunk>,
    kept_bytes: usize,
    dropped_bytes: usize,
}

impl Background {
    /// Keeps what fits.
    pub(super) fn add(&mut self, channel: Channel, mut bytes: Vec<u8>) {
        let kept = bytes.len().min(BACKGROUND_OUTPUT_BYTES_MAX - self.kept_bytes);
        self.dropped_bytes = self.dropped_bytes.saturating_add(bytes.len() - kept);
        self.kept_bytes += kept;
        bytes.truncate(kept);
        match self.chunks.last_mut() {
            // One chunk for each change of channel: single bytes in a loop must not cost an allocation each.
            Some((last, text)) if *last == late(channel) => text.append(&mut bytes),
            Some(_) | None if kept > 0 => self.chunks.push((late(channel), bytes)),
            Some(_) | None => {}
        }
    }

    /// Takes everything, with a line about what was dropped.
    pub(super) fn take(&mut self) -> Vec<Chunk> {
        let Background { mut chunks, dropped_bytes, .. } = std::mem::take(self);
        if dropped_bytes > 0 {
            let text = format!("\n[{dropped_bytes} bytes printed between executions were left out]\n");
            chunks.push((Channel::BackgroundStderr, text.into_bytes()));
        }
        chunks
    }
}

fn late(channel: Channel) -> Channel {
    match channel {
        Channel::Stdout | Channel::BackgroundStdout => Channel::BackgroundStdout,
        Channel::Stderr | Channel::BackgroundStderr => Channel::BackgroundStderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_output_is_kept_in_order_and_taken_once() {
        let mut background = Background::default();
        background.add(Channel::Stdout, b"a".to_vec());
        background.add(Channel::Stdout, b"b".to_vec());
        background.add(Channel::Stderr, b"c".to_vec());
        let expected =
            vec![(Channel::BackgroundStdout, b"ab".to_vec()), (Channel::BackgroundStderr, b"c".to_vec())];
        assert_eq!(background.take(), expected);
        assert!(background.take().is_empty());
    }

    #[test]
    fn the_newest_is_dropped_and_counted() {
        let mut background = Background::default();
        background.add(Channel::Stdout, vec![b'x'; BACKGROUND_OUTPUT_BYTES_MAX - 1]);
        background.add(Channel::Stderr, b"yz".to_vec());
        background.add(Channel::Stdout, b"more".to_vec());
        let chunks = background.take();
        assert_eq!(chunks[1], (Channel::BackgroundStderr, b"y".to_vec()));
        assert!(String::from_utf8_lossy(&chunks[2].1).contains("5 bytes"));
    }
}
