// SPDX-License-Identifier: Apache-2.0
//! Files that the server measures and removes while, or after, hostile hands arranged them.

use attack::list::scenes::HELD;

use super::{SECONDS, Stage};
use crate::selftest::client::CallError;

impl Stage<'_> {
    /// Lets a sandbox arrange files while the server measures them again and again, then stops it: all must be gone.
    pub(super) fn removed(&mut self, part: &str, count: u32) -> Result<String, CallError> {
        let config = self.ground.config();
        self.with_another(&config, |stage, name| {
            let number = count.to_string();
            let (told, measured) = std::thread::scope(|scope| {
                let arranging = scope.spawn(|| stage.perform(name, &[part, &number], SECONDS));
                let mut measured = Ok(());
                while !arranging.is_finished() && measured.is_ok() {
                    measured = stage.client.metrics().map(drop);
                }
                let ended = arranging.join();
                (ended.unwrap_or_else(|_| Err(std::io::Error::other("the thread ended").into())), measured)
            });
            measured?;
            let ran = told?;
            stage.client.metrics()?;
            Ok(if ran.output == HELD { ran.output } else { format!("{} {}", ran.output, ran.error) })
        })
    }
}
