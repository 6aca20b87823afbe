//! Faults that are planted on purpose, to show that the simulation finds them: in the code, or in what its ports stand for.

use std::sync::Arc;

use tandem_event_path::fault::Fault as InTheCode;

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One in the code that is simulated.
    Code(InTheCode),
    /// What is shown is taken for durable, whatever primary there is.
    EpochNotLookedAt,
    /// A reader by assignment does not read partitions that were added.
    PartitionNotNoticed,
    /// A member that finds no committed position begins at the end.
    BeginsAtTheEnd,
    /// A write is acknowledged before a majority has it.
    AnsweredBeforeDurable,
    /// A write does not look at the revision that is stored.
    RevisionNotChecked,
    /// An idempotency key is not kept.
    KeyNotKept,
    /// Clearing a published event clears what was written after it too.
    ClearedTooMuch,
    /// First answers stay when their customer is erased.
    AnswersNotForgotten,
    /// The replica takes an older revision in the place of a newer one.
    OlderRevisionWins,
    /// A rebuild puts an older revision in the place of a newer one.
    RestoredOverNewer,
    /// A primary that was deposed and does not know it acknowledges writes.
    DeposedAcknowledges,
    /// What was decided by what a deposed primary has said is written on the new one without a look at the revision that is stored.
    DeposedStateTrusted,
}

/// Those that a thousand seeds do not find. [`Fault::EpochNotLookedAt`] takes a failover within milliseconds of a write that is shown early, and
/// nothing that repeats it; a claim that is not awaited takes accounts to be away when orders begins, and a forgery until it is back.
pub const RARE: [Fault; 2] = [
    Fault::EpochNotLookedAt,
    Fault::Code(InTheCode::ClaimNotAwaited),
];

/// Those that a thousand seeds find.
pub const ALL: [Fault; 33] = [
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
];

impl Fault {
    /// Whether it shows only where the log loses records.
    #[must_use]
    pub fn is_of_losses(self) -> bool {
        matches!(
            self,
            Self::Code(InTheCode::OtherLogNotTold | InTheCode::RestoredByHalf)
        )
    }
}

/// Which faults are planted. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Vec<Fault>>);

impl Faults {
    /// These.
    #[must_use]
    pub fn planted(faults: &[Fault]) -> Self {
        Self(Arc::new(faults.to_vec()))
    }

    /// Whether this one is.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// Plants those that are in the code, in what runs on this thread.
    pub fn plant(&self) {
        let in_the_code = self.0.iter().filter_map(|fault| match fault {
            Fault::Code(fault) => Some(*fault),
            _ => None,
        });
        tandem_event_path::fault::plant(&in_the_code.collect::<Vec<_>>());
    }
}
