// SPDX-License-Identifier: Apache-2.0
//! What a wish comes to in each phase of a sandbox: a pure table.

/// Where a name is, as far as admission is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Never started.
    Unknown,
    /// Being started.
    Starting,
    /// In use.
    Running,
    /// Being stopped.
    Stopping,
    /// Over.
    Ended,
}

/// What a start comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStart {
    /// A new sandbox begins.
    Begin,
    /// The start under way serves this wish too.
    Join,
    /// There is nothing to do.
    AlreadyRunning,
    /// The one before must be gone; then the wish is looked at again.
    AwaitEnd,
}

/// What a stop comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStop {
    /// Nothing to stop, and never was.
    Unknown,
    /// The driver is told, and its end awaited.
    Tell,
    /// Somebody told it; its end is awaited.
    AwaitEnd,
    /// There is nothing to do.
    AlreadyEnded,
}

/// What a call into the sandbox comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCall {
    /// No such sandbox.
    Unknown,
    /// It is carried out.
    Serve,
    /// Not now.
    NotRunning,
}

/// Decides a start.
pub(crate) fn on_start(phase: Phase) -> OnStart {
    match phase {
        Phase::Unknown | Phase::Ended => OnStart::Begin,
        Phase::Starting => OnStart::Join,
        Phase::Running => OnStart::AlreadyRunning,
        Phase::Stopping => OnStart::AwaitEnd,
    }
}

/// Decides a stop.
pub(crate) fn on_stop(phase: Phase) -> OnStop {
    match phase {
        Phase::Unknown => OnStop::Unknown,
        Phase::Starting | Phase::Running => OnStop::Tell,
        Phase::Stopping => OnStop::AwaitEnd,
        Phase::Ended => OnStop::AlreadyEnded,
    }
}

/// Decides a call.
pub(crate) fn on_call(phase: Phase) -> OnCall {
    match phase {
        Phase::Unknown => OnCall::Unknown,
        Phase::Running => OnCall::Serve,
        Phase::Starting | Phase::Stopping | Phase::Ended => OnCall::NotRunning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wish_has_its_answer_in_every_phase() {
        let table = [
            (Phase::Unknown, OnStart::Begin, OnStop::Unknown, OnCall::Unknown),
            (Phase::Starting, OnStart::Join, OnStop::Tell, OnCall::NotRunning),
            (Phase::Running, OnStart::AlreadyRunning, OnStop::Tell, OnCall::Serve),
            (Phase::Stopping, OnStart::AwaitEnd, OnStop::AwaitEnd, OnCall::NotRunning),
            (Phase::Ended, OnStart::Begin, OnStop::AlreadyEnded, OnCall::NotRunning),
        ];
        for (phase, start, stop, call) in table {
            assert_eq!((on_start(phase), on_stop(phase), on_call(phase)), (start, stop, call), "{phase:?}");
        }
    }

    #[test]
    fn only_a_phase_without_a_driver_begins_a_new_one() {
        for phase in [Phase::Unknown, Phase::Starting, Phase::Running, Phase::Stopping, Phase::Ended] {
            let driven = matches!(phase, Phase::Starting | Phase::Running | Phase::Stopping);
            assert_eq!(on_start(phase) == OnStart::Begin, !driven, "{phase:?}");
            let awaits = matches!(on_stop(phase), OnStop::Tell | OnStop::AwaitEnd);
            assert_eq!(awaits, driven, "{phase:?}");
        }
    }
}
