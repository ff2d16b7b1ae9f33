// SPDX-License-Identifier: Apache-2.0
//! Bytes as they arrive in, the lines of an answer out.
//!
//! A line belongs to one stream and takes its place in the answer when it is complete: when its newline came, or the call
//! ended. The newline goes, and one carriage return before it; bytes that are no UTF-8 become replacement characters.
//! Memory is bounded: what does not fit is counted, and a last line in that stream says how much it was. Neither stream
//! can take all the room, so that a traceback is seen behind a flood.

use protocol::agent::Channel;
use protocol::calls::{OutputLine, Stream};
use protocol::limits::{
    JSON_BYTES_PER_BYTE, MCP_OUTPUT_BYTES_MAX, MCP_OUTPUT_LINES_MAX, OUTPUT_BYTES_MAX, OUTPUT_LINE_BYTES,
    OUTPUT_LINES_MAX, OUTPUT_RESERVE_SHARE,
};

use crate::memory::{Memory, Share};

/// How much of a call's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) lines: usize,
}

/// The room for the output of all calls of one request.
#[derive(Debug)]
pub(crate) struct Room {
    bounds: Bounds,
    share: Share,
    /// What the answer carries beside output, in bytes.
    beside: usize,
}

/// The output of one call.
#[derive(Debug)]
pub(crate) struct Transcript<'a> {
    share: &'a mut Share,
    foreground: Lines,
    background: Lines,
}

/// What is left of a call's output in the end.
#[derive(Debug, PartialEq)]
pub(crate) struct Printed {
    pub(crate) output: Vec<OutputLine>,
    pub(crate) background: Vec<OutputLine>,
    pub(crate) truncated: bool,
}

#[derive(Debug)]
struct Lines {
    bounds: Bounds,
    /// Whether something was left out because the server had no memory for it.
    no_memory: bool,
    done: Vec<OutputLine>,
    stdout: Partial,
    stderr: Partial,
}

/// One stream: the line that is not complete yet, and what was taken and left out so far.
#[derive(Debug, Default)]
struct Partial {
    line: Vec<u8>,
    open: bool,
    bytes: usize,
    lines: usize,
    left_out: u64,
}

impl Bounds {
    /// Returns the bounds of each of `calls` calls that share one answer.
    pub(crate) fn shared_by(calls: usize) -> Bounds {
        let calls = calls.max(1);
        Bounds { bytes: OUTPUT_BYTES_MAX / calls, lines: OUTPUT_LINES_MAX / calls }
    }
}

impl Room {
    /// Returns the room of a request with so many calls.
    pub(crate) fn shared_by(calls: usize, memory: &Memory) -> Room {
        Room { bounds: Bounds::shared_by(calls), share: memory.output(), beside: 0 }
    }

    /// Returns the room of a call by a model, which could not read much more.
    pub(crate) fn for_model(memory: &Memory) -> Room {
        let bounds = Bounds { bytes: MCP_OUTPUT_BYTES_MAX, lines: MCP_OUTPUT_LINES_MAX };
        Room { bounds, share: memory.output(), beside: 0 }
    }

    /// Says that the answer will repeat so many bytes of something else.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.beside = self.beside.saturating_add(bytes);
    }

    /// Returns how large an answer with the output so far can be, in bytes.
    pub(crate) fn answer_bytes_max(&self) -> usize {
        self.share.used().saturating_add(self.beside).saturating_mul(JSON_BYTES_PER_BYTE)
    }
}

impl Transcript<'_> {
    pub(crate) fn new(room: &mut Room) -> Transcript<'_> {
        let Room { bounds, share, beside: _ } = room;
        Transcript { share, foreground: Lines::new(*bounds), background: Lines::new(*bounds) }
    }

    /// Takes some bytes.
    pub(crate) fn take(&mut self, channel: Channel, bytes: &[u8]) {
        let (lines, stream) = match channel {
            Channel::Stdout => (&mut self.foreground, Stream::Stdout),
            Channel::Stderr => (&mut self.foreground, Stream::Stderr),
            Channel::BackgroundStdout => (&mut self.background, Stream::Stdout),
            Channel::BackgroundStderr => (&mut self.background, Stream::Stderr),
        };
        if lines.takes(stream) && !self.share.take(cost(bytes)) {
            lines.leave_out_for_memory(stream);
        }
        lines.take(stream, bytes);
    }

    /// Completes what is incomplete and returns the lines.
    pub(crate) fn finish(self) -> Printed {
        let (output, cut) = self.foreground.finish();
        let (background, background_cut) = self.background.finish();
        Printed { output, background, truncated: cut || background_cut }
    }
}

impl Printed {
    /// Adds a line of our own to standard error.
    pub(crate) fn add_error(&mut self, text: impl Into<String>) {
        self.output.push(OutputLine { stream: Stream::Stderr, text: text.into() });
    }

    /// Says whether standard error has a line that is not empty.
    pub(crate) fn has_error(&self) -> bool {
        self.output.iter().any(|line| line.stream == Stream::Stderr && !line.text.is_empty())
    }
}

/// Returns what a piece of output costs, in bytes.
fn cost(bytes: &[u8]) -> usize {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    // A byte that is no text becomes a replacement character of three.
    let strange = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    bytes.len() + 2 * strange + lines * OUTPUT_LINE_BYTES
}

impl Lines {
    fn new(bounds: Bounds) -> Lines {
        Lines {
            bounds,
            no_memory: false,
            done: Vec::new(),
            stdout: Partial::default(),
            stderr: Partial::default(),
        }
    }

    fn take(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let room = if self.no_memory { 0 } else { self.room(stream) };
            let partial = self.partial(stream);
            if partial.left_out > 0 || room == 0 {
                partial.left_out += bytes.len() as u64;
                return;
            }
            let length = length.min(room);
            let (piece, rest) = bytes.split_at(length);
            partial.lines += usize::from(!partial.open);
            partial.bytes += length;
            partial.open = true;
            partial.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.complete(stream);
            }
            bytes = rest;
        }
    }

    /// Says whether a stream takes anything still.
    fn takes(&mut self, stream: Stream) -> bool {
        self.partial(stream).left_out == 0 && !self.no_memory
    }

    fn leave_out_for_memory(&mut self, stream: Stream) {
        self.no_memory = true;
        tracing::warn!(?stream, "output is cut: the server collects as much as it may");
    }

    /// Returns how many bytes more a stream may take.
    fn room(&self, stream: Stream) -> usize {
        let (this, other) = match stream {
            Stream::Stdout => (&self.stdout, &self.stderr),
            Stream::Stderr => (&self.stderr, &self.stdout),
        };
        let left = |max: usize, taken: usize, others: usize| {
            let alone = (max - max / OUTPUT_RESERVE_SHARE).saturating_sub(taken);
            alone.min(max.saturating_sub(taken + others))
        };
        if !this.open && left(self.bounds.lines, this.lines, other.lines) == 0 {
            return 0;
        }
        left(self.bounds.bytes, this.bytes, other.bytes)
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn complete(&mut self, stream: Stream) {
        let partial = self.partial(stream);
        let mut line = partial.line.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line).into_owned();
        partial.line.clear();
        partial.open = false;
        self.done.push(OutputLine { stream, text });
    }

    fn finish(mut self) -> (Vec<OutputLine>, bool) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.partial(stream).open {
                self.complete(stream);
            }
        }
        let Bounds { bytes, lines } = self.bounds;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let left_out = self.partial(stream).left_out;
            if left_out > 0 {
                let why = if self.no_memory {
                    "the server collects as much output as it may, try again later".to_owned()
                } else {
                    format!("one answer carries at most {bytes} bytes and {lines} lines of output")
                };
                let text = format!("[{left_out} bytes left out: {why}]");
                self.done.push(OutputLine { stream, text });
            }
        }
        let truncated = self.stdout.left_out > 0 || self.stderr.left_out > 0;
        (self.done, truncated)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use protocol::limits::{MEMORY_SHARE_FREE_BYTES, OUTPUTS_BYTES_MAX};

    use super::*;

    const WIDE: Bounds = Bounds { bytes: 1 << 20, lines: 1 << 16 };

    fn printed(chunks: &[(Channel, &[u8])], bounds: Bounds) -> Printed {
        let mut room = Room { bounds, share: Memory::new().output(), beside: 0 };
        let mut transcript = Transcript::new(&mut room);
        for (channel, bytes) in chunks {
            transcript.take(*channel, bytes);
        }
        transcript.finish()
    }

    fn texts(lines: &[OutputLine]) -> Vec<(Stream, &str)> {
        lines.iter().map(|line| (line.stream, line.text.as_str())).collect()
    }

    #[test]
    fn lines_are_ordered_by_their_completion() {
        let chunks: [(Channel, &[u8]); 5] = [
            (Channel::Stdout, b"out "),
            (Channel::Stderr, b"err\n"),
            (Channel::Stdout, b"done\nrest"),
            (Channel::BackgroundStdout, b"late\n"),
            (Channel::Stderr, b"last"),
        ];
        let printed = printed(&chunks, WIDE);
        let expected = [
            (Stream::Stderr, "err"),
            (Stream::Stdout, "out done"),
            (Stream::Stdout, "rest"),
            (Stream::Stderr, "last"),
        ];
        assert_eq!(texts(&printed.output), expected);
        assert_eq!(texts(&printed.background), [(Stream::Stdout, "late")]);
        assert!(!printed.truncated);
    }

    #[test]
    fn newlines_go_with_one_carriage_return_and_bad_bytes_are_replaced() {
        let bytes = b"a\r\nb\r\r\n\n \xff\xfe|\xf0\x9f\xa6\x80\r";
        let printed = printed(&[(Channel::Stdout, bytes)], WIDE);
        let lines: Vec<&str> = printed.output.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(lines, ["a", "b\r", "", " \u{FFFD}\u{FFFD}|\u{1F980}"]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_leaves_room_for_the_other_stream() {
        let bounds = Bounds { bytes: 320, lines: 1000 };
        let chunks: [(Channel, &[u8]); 3] =
            [(Channel::Stdout, &[b'x'; 400]), (Channel::Stderr, b"boom\n"), (Channel::Stdout, b"\nmore\n")];
        let printed = printed(&chunks, bounds);
        assert!(printed.truncated);
        assert_eq!(printed.output[0].text, "boom");
        assert_eq!(printed.output[1].text.len(), 310);
        let last = &printed.output[2];
        assert_eq!(last.stream, Stream::Stdout);
        assert!(last.text.starts_with("[96 bytes left out: "), "{}", last.text);
    }

    #[test]
    fn lines_are_bounded_too() {
        let printed = printed(&[(Channel::Stdout, &b"\n".repeat(100))], Bounds { bytes: 1000, lines: 64 });
        assert_eq!(printed.output.len(), 62 + 1);
        assert!(printed.output[62].text.starts_with("[38 bytes left out"));
    }

    #[test]
    fn a_server_without_memory_for_more_says_so_and_keeps_what_it_has() {
        let memory = Memory::new();
        let mut hog = memory.output();
        assert!(hog.take(OUTPUTS_BYTES_MAX));
        let mut room = Room::shared_by(1, &memory);
        let mut transcript = Transcript::new(&mut room);
        transcript.take(Channel::Stdout, b"first\n");
        transcript.take(Channel::Stdout, &[b'x'; MEMORY_SHARE_FREE_BYTES]);
        transcript.take(Channel::Stderr, b"late\n");
        let printed = transcript.finish();
        assert!(printed.truncated);
        let texts = texts(&printed.output);
        assert_eq!(texts[0], (Stream::Stdout, "first"));
        assert!(texts[1].1.starts_with("[65536 bytes left out: the server"), "{texts:?}");
        assert!(texts[2].1.starts_with("[5 bytes left out: the server"), "{texts:?}");
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1_usize..20) {
            let whole = printed(&[(Channel::Stdout, &bytes)], WIDE);
            let chunks: Vec<(Channel, &[u8])> = bytes.chunks(cut).map(|chunk| (Channel::Stdout, chunk)).collect();
            prop_assert_eq!(printed(&chunks, WIDE), whole);
        }

        #[test]
        fn no_line_is_lost_or_invented(lines in proptest::collection::vec("[a-zé \t]{0,8}", 0..40)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let printed = printed(&[(Channel::Stderr, text.as_bytes())], WIDE);
            let got: Vec<String> = printed.output.into_iter().map(|line| line.text).collect();
            prop_assert_eq!(got, lines);
        }

        #[test]
        fn bounds_are_kept(sizes in proptest::collection::vec((any::<bool>(), 0_usize..200, 1_usize..30), 0..30)) {
            let bounds = Bounds { bytes: 1024, lines: 64 };
            let mut room = Room { bounds, share: Memory::new().output(), beside: 0 };
            let mut transcript = Transcript::new(&mut room);
            let mut sent = 0_u64;
            for (err, size, line) in sizes {
                let channel = if err { Channel::Stderr } else { Channel::Stdout };
                let mut bytes = vec![b'z'; size];
                bytes.iter_mut().step_by(line).for_each(|byte| *byte = b'\n');
                sent += size as u64;
                transcript.take(channel, &bytes);
            }
            let kept = (transcript.foreground.stdout.bytes + transcript.foreground.stderr.bytes) as u64;
            let left_out = transcript.foreground.stdout.left_out + transcript.foreground.stderr.left_out;
            prop_assert_eq!(kept + left_out, sent);
            prop_assert!(kept <= 1024);
            let printed = transcript.finish();
            prop_assert!(printed.output.len() <= 64 + 2);
            prop_assert_eq!(printed.truncated, left_out > 0);
        }
    }
}
