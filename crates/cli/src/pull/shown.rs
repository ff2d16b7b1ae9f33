// SPDX-License-Identifier: Apache-2.0
//! How a pull is shown: bars on a terminal, lines elsewhere, JSON where it is asked for.
//!
//! Lines tell when a layer gets into another state, so there are at most three for each layer, however long it takes.

use std::io::{IsTerminal, Write};

use image::pull::{Pull, PulledLayer};
use image::reference::Reference;
use image::store::ImageRecord;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{print, size};

/// Characters of a layer's digest that are shown to people.
const ID_CHARS: usize = 12;
/// How often bars are drawn at most, in a second.
const DRAWN_A_SECOND: u8 = 10;

/// Shows one pull.
pub(crate) struct Shown {
    form: Form,
    /// What was last told of each layer.
    states: Vec<State>,
}

enum Form {
    Bars(MultiProgress, Vec<ProgressBar>),
    Lines,
    Json,
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Fetching,
    Fetched,
    Unpacked,
}

impl State {
    fn of(layer: &PulledLayer) -> State {
        match layer {
            PulledLayer { unpacked: true, .. } => State::Unpacked,
            PulledLayer { fetched, size, .. } if fetched >= size => State::Fetched,
            PulledLayer { fetched: 0, .. } => State::Waiting,
            PulledLayer { .. } => State::Fetching,
        }
    }

    fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Fetching => "fetching",
            State::Fetched => "fetched",
            State::Unpacked => "unpacked",
        }
    }
}

impl Shown {
    /// Chooses how to show it.
    pub(crate) fn new(json: bool) -> Shown {
        let form = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => {
                let target = ProgressDrawTarget::stderr_with_hz(DRAWN_A_SECOND);
                Form::Bars(MultiProgress::with_draw_target(target), Vec::new())
            }
            (false, false) => Form::Lines,
        };
        Shown { form, states: Vec::new() }
    }

    /// Says that the registry is asked.
    pub(crate) fn begin(&self, reference: &Reference) -> Result<(), Failure> {
        match &self.form {
            Form::Json => print(&json!({"event": "pulling", "reference": reference.to_string()}).to_string()),
            Form::Bars(..) | Form::Lines => {
                tell(&format!("pulling {reference}"));
                Ok(())
            }
        }
    }

    /// Shows what is new.
    pub(crate) fn news(&mut self, pull: &Pull) -> Result<(), Failure> {
        self.states.resize(pull.layers.len(), State::Waiting);
        if let Form::Bars(all, bars) = &mut self.form {
            for layer in pull.layers.iter().skip(bars.len()) {
                bars.push(all.add(bar(layer)));
            }
            for (bar, layer) in bars.iter().zip(&pull.layers) {
                bar.set_position(layer.fetched);
                bar.set_message(State::of(layer).word());
            }
            return Ok(());
        }
        for (index, layer) in pull.layers.iter().enumerate() {
            let now = State::of(layer);
            if now == self.states[index] {
                continue;
            }
            self.states[index] = now;
            match self.form {
                Form::Json => print(&event(now, layer).to_string())?,
                Form::Bars(..) | Form::Lines => tell(&line(now, layer)),
            }
        }
        Ok(())
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        if let Form::Bars(all, bars) = &mut self.form {
            bars.iter().for_each(ProgressBar::finish);
            // A terminal that is gone needs no clearing.
            let _ = all.clear();
        }
    }

    /// Says what came of it.
    pub(crate) fn end(&self, image: &ImageRecord, was_here: bool) -> Result<(), Failure> {
        if matches!(self.form, Form::Json) {
            let event = json!({
                "event": if was_here { "here" } else { "pulled" },
                "reference": image.reference,
                "digest": image.manifest_digest.to_string(),
                "platform": image.platform,
                "size": image.size,
            });
            return print(&event.to_string());
        }
        if was_here {
            tell("it was here already; --policy always asks the registry whether it is another one now");
        }
        print(&format!("Image: {}\nDigest: {}", image.reference, image.manifest_digest))
    }
}

fn bar(layer: &PulledLayer) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes:>10} of {total_bytes:<10} {msg}")
        .expect("a template that is written right here")
        .progress_chars("=> ");
    ProgressBar::new(layer.size).with_style(style).with_prefix(id(layer))
}

fn id(layer: &PulledLayer) -> String {
    layer.digest.digest().chars().take(ID_CHARS).collect()
}

fn line(state: State, layer: &PulledLayer) -> String {
    format!("layer {}: {} ({})", id(layer), state.word(), size(layer.size))
}

fn event(state: State, layer: &PulledLayer) -> Value {
    json!({
        "event": "layer",
        "state": state.word(),
        "digest": layer.digest.to_string(),
        "size": layer.size,
        "fetched": layer.fetched,
    })
}

/// Writes a line to standard error.
fn tell(line: &str) {
    // Nobody is there to read when it is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_told_of_when_its_state_changes() {
        let layer = |fetched, unpacked| PulledLayer {
            digest: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            size: 10_000,
            fetched,
            unpacked,
        };
        let states = [layer(0, false), layer(1, false), layer(10_000, false), layer(10_000, true)];
        let words = states.each_ref().map(|layer| State::of(layer).word());
        assert_eq!(words, ["waiting", "fetching", "fetched", "unpacked"]);
        assert_eq!(line(State::Fetched, &states[2]), "layer aaaaaaaaaaaa: fetched (10.0 kB)");
        assert_eq!(event(State::Fetching, &states[1])["fetched"], 1);
    }
}
