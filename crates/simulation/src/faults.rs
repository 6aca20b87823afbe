//! Faults that are planted on purpose to show that the simulation finds them. They are in the code, or in the
//! simulated implementations of its ports.

use std::sync::Arc;

use tandem_event_path::fault::Fault as InTheCode;

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault in the code that is simulated.
    Code(InTheCode),
    /// State that is shown early counts as durable although the primary has changed.
    EpochNotLookedAt,
    /// A reader by assignment does not read partitions that were added.
    PartitionNotNoticed,
    /// A member that finds no committed position begins at the end.
    BeginsAtTheEnd,
    /// A write is acknowledged before a majority has it.
    AnsweredBeforeDurable,
    /// A write does not check the stored revision.
    RevisionNotChecked,
    /// An idempotency key is not kept.
    KeyNotKept,
    /// Clearing a published event also clears what was written after it.
    ClearedTooMuch,
    /// First answers are kept when their customer is erased.
    AnswersNotForgotten,
    /// The replica replaces a newer revision with an older one.
    OlderRevisionWins,
    /// A rebuild replaces a newer revision with an older one.
    RestoredOverNewer,
    /// A primary that was deposed and does not know it acknowledges writes.
    DeposedAcknowledges,
    /// A decision on the state of a deposed primary is written on the new one without a check of the stored revision.
    DeposedStateTrusted,
}

/// Faults that a thousand seeds do not find. [`Fault::EpochNotLookedAt`] needs a failover within milliseconds of a
/// write that is shown early, and no later repetition of that write. `ClaimNotAwaited` needs accounts to be away when
/// orders starts, and a forged record before accounts is back.
pub const RARE: [Fault; 2] = [
    Fault::EpochNotLookedAt,
    Fault::Code(InTheCode::ClaimNotAwaited),
];

/// Faults that a thousand seeds find.
pub const ALL: [Fault; 34] = [
    Fault::Code(InTheCode::ClearBeforePublish),
    Fault::Code(InTheCode::CommitBeforeWrite),
    Fault::Code(InTheCode::HintTrusted),
    Fault::Code(InTheCode::KeyOrderOvertaken),
    Fault::Code(InTheCode::FailureTakenForSuccess),
    Fault::Code(InTheCode::SweptOnce),
    Fault::Code(InTheCode::ReadMeanwhileDropped),
    Fault::Code(InTheCode::ErasedFromAbsence),
    Fault::Code(InTheCode::NotWaited),
    Fault::Code(InTheCode::HoleTakenForRecord),
    Fault::Code(InTheCode::SignatureNotChecked),
    Fault::Code(InTheCode::RepeatsNotKnown),
    Fault::Code(InTheCode::NotCaughtUp),
    Fault::Code(InTheCode::MinimalRevisionIgnored),
    Fault::Code(InTheCode::PersonNotForgotten),
    Fault::PartitionNotNoticed,
    Fault::BeginsAtTheEnd,
    Fault::AnsweredBeforeDurable,
    Fault::RevisionNotChecked,
    Fault::KeyNotKept,
    Fault::ClearedTooMuch,
    Fault::AnswersNotForgotten,
    Fault::OlderRevisionWins,
    Fault::RestoredOverNewer,
    Fault::Code(InTheCode::AuditNotAwaited),
    Fault::Code(InTheCode::OtherLogNotTold),
    Fault::Code(InTheCode::RestoredByHalf),
    Fault::Code(InTheCode::OutlivedBelieved),
    Fault::DeposedAcknowledges,
    Fault::DeposedStateTrusted,
    Fault::Code(InTheCode::BarrierNotPassed),
    Fault::Code(InTheCode::SealedAsBefore),
    Fault::Code(InTheCode::ResealedCardsNotTold),
    Fault::Code(InTheCode::OlderBelieved),
];

impl Fault {
    /// Whether the fault shows only where the log loses records.
    #[must_use]
    pub fn is_of_losses(self) -> bool {
        matches!(
            self,
            Self::Code(InTheCode::OtherLogNotTold | InTheCode::RestoredByHalf)
        )
    }
}

/// The planted faults. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Vec<Fault>>);

impl Faults {
    /// Plants these faults.
    #[must_use]
    pub fn planted(faults: &[Fault]) -> Self {
        Self(Arc::new(faults.to_vec()))
    }

    /// Whether this fault is planted.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// Plants the faults in the code, for everything that runs on this thread.
    pub fn plant(&self) {
        let in_the_code = self.0.iter().filter_map(|fault| match fault {
            Fault::Code(fault) => Some(*fault),
            _ => None,
        });
        tandem_event_path::fault::plant(&in_the_code.collect::<Vec<_>>());
    }
}
