//! The claims that were read from the topic of keys, and the release of the records that wait until the claims are
//! judged.

use tandem_model::message::Message;

use super::{CATCH_UP, KeyRing};
use crate::{
    claims::{CLAIM, Claim, Claims},
    log::Record,
    refused_records,
    store::StoreError,
};

impl KeyRing {
    /// Declares that the topics may be used, and that it is known whose signatures count. From now on keys are
    /// published, and the records that were read are judged.
    pub fn admit(&self) {
        {
            let mut held = self.held();
            if held.is_looking {
                return;
            }
            // Records that are read meanwhile queue behind the waiting ones.
            held.is_looking = true;
            self.judge_early(&mut held);
            self.0
                .is_claimed
                .send_if_modified(|is_claimed| !std::mem::replace(is_claimed, true));
        }
        if self.take_unjudged(0) {
            self.show_refused();
        } else {
            self.0.shutdown.spawn(self.clone().look_for_keys());
        }
        self.step();
    }

    /// Exports the metric of refused records, once everything that a start has read is judged. Earlier it would
    /// mislead: each start counts old refused records again, which must not look like an increase.
    pub(super) fn show_refused(&self) {
        if self.0.signing.is_some() && !self.held().is_to_be_read_again {
            refused_records::show(self.0.topic);
        }
    }

    /// Waits until it is known whose signatures count.
    pub(super) async fn judged(&self) -> Result<(), StoreError> {
        if self.0.signing.is_none() || *self.0.is_claimed.borrow() {
            return Ok(());
        }
        let mut is_claimed = self.0.is_claimed.subscribe();
        let claimed = is_claimed.wait_for(|is_claimed| *is_claimed);
        match self.0.shutdown.clock().timeout(CATCH_UP, claimed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Unavailable(format!(
                "{}: whose the topics are is still being found out",
                self.0.topic
            ))),
        }
    }

    /// The claims on the topics, after the topic of keys is read to its end. The remembered claims stand in for the
    /// older part, so that a start need not wait until that part is read again.
    ///
    /// # Errors
    /// When the topic cannot be read to its end now.
    pub async fn claims(&self) -> Result<Claims, StoreError> {
        self.read_on().await?;
        let claims = self.claims_so_far();
        let is_remembered = self.held().begins_behind;
        if claims.first.is_some() || !is_remembered {
            return Ok(claims);
        }
        // Only the whole topic can show that no service has claimed the topics.
        self.begin_again("none of the claims that are remembered of it counts");
        self.read_on().await?;
        Ok(self.claims_so_far())
    }

    fn claims_so_far(&self) -> Claims {
        let messages = self.held().claims.clone();
        let signatures = self.0.signing.as_ref().map(|signing| &signing.signatures);
        Claims::of_messages(&messages, signatures)
    }

    /// Waits until the topic has shown a claim.
    pub async fn claimed(&self) {
        self.claimed_anew(0).await;
    }

    /// Waits until the topic has shown more claims than `seen`, and returns how many.
    pub async fn claimed_anew(&self, seen: usize) -> usize {
        let mut steps = self.0.steps.subscribe();
        // The sender lives as long as this ring.
        let _ = steps.wait_for(|_| self.held().claims.len() > seen).await;
        self.held().claims.len()
    }

    /// Whether this claim is the newest one of a service on the topic, with a valid signature.
    pub(crate) fn is_last_claim(&self, service: &str, claim: &Claim) -> bool {
        let key = format!("{CLAIM}{service}");
        let last = {
            let held = self.held();
            let of_service = |message: &&Message| message.key.as_deref() == Some(&*key);
            held.claims.iter().rfind(of_service).cloned()
        };
        last.is_some_and(|last| {
            let body = last.payload.as_deref();
            let says = body.and_then(|body| serde_json::from_slice::<Claim>(body).ok());
            says.as_ref() == Some(claim) && self.judge(&last).is_ok()
        })
    }

    /// Publishes the claim of a service. `None` withdraws the claim.
    ///
    /// # Errors
    /// When Kafka does not accept it.
    pub async fn claim(&self, service: &str, claim: Option<&Claim>) -> Result<(), StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        let body = claim.map(serde_json::to_vec).transpose().map_err(corrupt)?;
        let key = format!("{CLAIM}{service}");
        let record = Record::new(self.0.topic, &key, body.as_deref());
        let sent = self.0.log.publish(self.signed(record)).await;
        sent.map(drop)
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.0.topic)))
    }

    /// Publishes the claim of a service again if the topic has shown it and lost it. Without the claim, a process
    /// that reads the topic from its beginning knows neither who owns the topics nor whose signatures count. Returns
    /// whether it was published.
    ///
    /// # Errors
    /// When Kafka does not accept it, or the topic cannot be read to its end now.
    pub async fn publish_lost_claim(&self, service: &str) -> Result<bool, StoreError> {
        if !*self.0.is_claimed.borrow() {
            // The claim is being made.
            return Ok(false);
        }
        let ends = self.caught_up().await?;
        let key = format!("{CLAIM}{service}");
        if self.held().claim_on_topic(&key, &ends).is_some() {
            return Ok(false);
        }
        let Some(claim) = self.claims_so_far().of.remove(service) else {
            return Ok(false);
        };
        self.claim(service, Some(&claim)).await?;
        Ok(true)
    }

    /// Changes the sealing key in the claim of a service. Does nothing if there is no claim.
    ///
    /// # Errors
    /// When Kafka does not accept it, or the topic cannot be read to its end now.
    pub async fn claim_with_sealing_key(
        &self,
        service: &str,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        let claims = self.claims().await?;
        let Some(claim) = claims.of.get(service) else {
            return Ok(());
        };
        if claim.sealing_key == fingerprint {
            return Ok(());
        }
        let signing = self.0.signing.as_ref();
        let claim = Claim {
            sealing_key: fingerprint.to_owned(),
            number: claims.next_number(service, signing.map(|signing| &signing.signatures)),
            ..claim.clone()
        };
        self.claim(service, Some(&claim)).await
    }
}
