//! Replacing the sealing key while the service serves: what older keys have sealed is sealed with the newest, part by part, page by page.
//!
//! How far it is stands in the store's registry, so that it goes on there after an interruption. It goes through everything again until
//! nothing was found; only then the store says that the older keys are not needed any more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tandem_event_path::{
    data_keys::KeyRing,
    sealing::Sealer,
    store::{ReadBarrier, Registry, StoreError},
};
use tandem_runtime::{backoff::Backoff, shutdown::Shutdown};

use utoipa::ToSchema;

use crate::sealing_keys::settle_sealing_key;

/// Under this name a store remembers how far the work is.
const PLACE: &str = "sealing-key-rotation";
/// How often everything is gone through until nothing is found: others may still seal with an older key.
const PASSES: u32 = 16;
/// So many of those that do not open are named.
const NAMED: usize = 10;
/// The pauses while store or log are away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// A page that was gone through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewrappedPage {
    /// How many were looked at.
    pub looked_at: u64,
    /// How many of them were sealed anew.
    pub rewrapped: u64,
    /// How many were published again as they are: the store had them already, and the log did not.
    pub republished: u64,
    /// Ids of which something opens with none of the keys.
    pub unopened: Vec<String>,
    /// The last id; `None` when there are no more.
    pub last: Option<String>,
}

/// One kind of thing that holds what the sealing key has sealed.
#[async_trait]
pub trait Rewraps: Send + Sync + 'static {
    /// What they are called, such as `customers`.
    fn name(&self) -> &'static str;

    /// Goes through some of those with ids greater than `after`.
    ///
    /// # Errors
    /// When store or log are away; doing the page again does no harm.
    async fn rewrap_some(&self, after: Option<&str>) -> Result<RewrappedPage, StoreError>;
}

/// How far a rotation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationView {
    /// The fingerprint of the key that everything is sealed with in the end.
    pub key: String,
    /// The fingerprints of the keys that it replaces.
    pub older: Vec<String>,
    /// When it was begun, or gone on with.
    pub begun_at: Option<DateTime<Utc>>,
    /// When it was through; `None` while it is not.
    pub ended_at: Option<DateTime<Utc>>,
    /// What is gone through now.
    pub part: Option<String>,
    /// How often everything was gone through.
    pub passes: u32,
    /// How many were looked at, in all passes.
    pub looked_at: u64,
    /// How many were sealed anew.
    pub rewrapped: u64,
    /// How many hold something that opens with none of the keys.
    pub unopened: u64,
    /// The first of them.
    pub unopened_ids: Vec<String>,
    /// Why it ended without being through.
    pub failed: Option<String>,
}

impl RotationView {
    /// Whether it is under way.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.begun_at.is_some() && self.ended_at.is_none() && self.failed.is_none()
    }
}

/// Where a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RotationPlace {
    /// The fingerprint of the newest key.
    key: String,
    part: usize,
    after: Option<String>,
    /// What was sealed anew or published again.
    #[serde(alias = "rewrapped_in_pass")]
    found_in_pass: u64,
    unopened_in_pass: u64,
}

/// Replaces the sealing key of one service. Clones share it.
#[derive(Clone)]
pub struct KeyRotation(Arc<Rotation>);

struct Rotation {
    parts: Vec<Arc<dyn Rewraps>>,
    registry: Arc<dyn Registry>,
    sealer: Sealer,
    /// Where the claim of this service stands, if it claims.
    claim: Option<(&'static str, KeyRing)>,
    shutdown: Shutdown,
    view: Mutex<RotationView>,
}

impl KeyRotation {
    /// Goes through these parts for this sealer. With `claim` the service's claim of the topics then names the newest key.
    #[must_use]
    pub fn new(
        parts: Vec<Arc<dyn Rewraps>>,
        registry: Arc<dyn Registry>,
        sealer: Sealer,
        claim: Option<(&'static str, KeyRing)>,
        shutdown: Shutdown,
    ) -> Self {
        let view = Mutex::new(RotationView {
            key: sealer.fingerprint(),
            older: sealer.fingerprints().split_off(1),
            ..RotationView::default()
        });
        Self(Arc::new(Rotation {
            parts,
            registry,
            sealer,
            claim,
            shutdown,
            view,
        }))
    }

    /// The routes `POST /admin/keys/rotate`, which begins it or goes on with it, and `GET /admin/keys/rotation`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/keys/rotate", post(begin))
            .route("/admin/keys/rotation", get(show))
            .with_state(self)
    }

    /// Goes on with a rotation that was interrupted, in the background.
    pub fn resume(&self) {
        let rotation = self.clone();
        self.0.shutdown.spawn(async move {
            let recalled = rotation
                .until_done(|| rotation.0.registry.recall(PLACE))
                .await;
            if recalled.flatten().is_some_and(|place| !place.is_empty()) {
                rotation.begin();
            }
        });
    }

    /// Begins, if it is not under way.
    pub fn begin(&self) -> RotationView {
        {
            let mut view = self.view();
            if view.is_running() {
                return view.clone();
            }
            *view = RotationView {
                key: view.key.clone(),
                older: view.older.clone(),
                begun_at: Some(self.now()),
                ..RotationView::default()
            };
        }
        let rotation = self.clone();
        self.0.shutdown.spawn(async move {
            if let Err(reason) = rotation.run().await {
                tracing::error!(reason, "the sealing key is not replaced");
                rotation.view().failed = Some(reason);
            }
        });
        self.view().clone()
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> RotationView {
        self.view().clone()
    }

    fn now(&self) -> DateTime<Utc> {
        self.0.shutdown.clock().now().into()
    }

    fn view(&self) -> MutexGuard<'_, RotationView> {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until it is done; `None` when the service stops.
    async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        work: impl FnMut() -> F,
    ) -> Option<T> {
        let shutdown = &self.0.shutdown;
        let done = shutdown.retry(BACKOFF, work, |error, pause| {
            tracing::warn!(%error, ?pause, "the sealing key cannot be replaced now; trying again");
        });
        tokio::select! {
            biased;
            () = shutdown.requested() => None,
            done = done => done,
        }
    }

    async fn run(&self) -> Result<(), String> {
        let stopping = || "the service is stopping; it goes on at the next start".to_owned();
        let Rotation {
            parts,
            registry,
            sealer,
            claim,
            ..
        } = &*self.0;
        let key = sealer.fingerprint();
        let fresh = RotationPlace {
            key: key.clone(),
            part: 0,
            after: None,
            found_in_pass: 0,
            unopened_in_pass: 0,
        };
        let recalled = self.until_done(|| registry.recall(PLACE)).await;
        let recalled = recalled.ok_or_else(stopping)?;
        let mut place = recalled
            .and_then(|text| serde_json::from_str::<RotationPlace>(&text).ok())
            .filter(|place| place.key == key && place.part < parts.len())
            .unwrap_or_else(|| fresh.clone());
        tracing::info!(key, older = ?self.view().older, part = place.part, after = place.after, "the sealing key is being replaced");
        let barrier = ReadBarrier::new(Arc::clone(registry), self.0.shutdown.clock());
        loop {
            // What a primary shows that was deposed would be nothing to conclude from that all is done.
            self.until_done(|| barrier.pass())
                .await
                .ok_or_else(stopping)?;
            while let Some(part) = parts.get(place.part) {
                self.view().part = Some(part.name().to_owned());
                let after = place.after.clone();
                let page = self
                    .until_done(|| part.rewrap_some(after.as_deref()))
                    .await
                    .ok_or_else(stopping)?;
                self.count(&page);
                place.found_in_pass += page.rewrapped + page.republished;
                place.unopened_in_pass += page.unopened.len() as u64;
                match page.last {
                    Some(last) => place.after = Some(last),
                    None => (place.part, place.after) = (place.part + 1, None),
                }
                let text = serde_json::to_string(&place).map_err(|error| error.to_string())?;
                self.until_done(|| registry.note(PLACE, &text))
                    .await
                    .ok_or_else(stopping)?;
            }
            let passes = {
                let mut view = self.view();
                view.passes += 1;
                view.passes
            };
            if place.unopened_in_pass > 0 {
                self.until_done(|| registry.forget(PLACE)).await;
                return Err(format!(
                    "something of {} does not open with any of the keys that were given: the older keys may not go; give the key that it was sealed with, too",
                    place.unopened_in_pass
                ));
            }
            if place.found_in_pass == 0 {
                break;
            }
            if passes >= PASSES {
                return Err("others go on sealing with an older key: start every instance with the newest key first".to_owned());
            }
            place = fresh.clone();
        }
        self.until_done(|| settle_sealing_key(registry.as_ref(), sealer))
            .await
            .ok_or_else(stopping)?;
        if let Some((service, ring)) = claim {
            self.until_done(|| ring.claim_with_sealing_key(service, &key))
                .await
                .ok_or_else(stopping)?;
        }
        self.until_done(|| registry.forget(PLACE))
            .await
            .ok_or_else(stopping)?;
        let mut view = self.view();
        (view.ended_at, view.part) = (Some(self.now()), None);
        tracing::info!(
            key,
            looked_at = view.looked_at,
            rewrapped = view.rewrapped,
            "the sealing key is replaced; older ones are not needed any more"
        );
        Ok(())
    }

    fn count(&self, page: &RewrappedPage) {
        let mut view = self.view();
        view.looked_at += page.looked_at;
        view.rewrapped += page.rewrapped;
        view.unopened += page.unopened.len() as u64;
        let room = NAMED.saturating_sub(view.unopened_ids.len());
        let named = page.unopened.iter().take(room).cloned();
        view.unopened_ids.extend(named);
    }
}

/// Seals with the newest key what older ones have sealed, in the background; begins, or goes on where it was.
#[utoipa::path(
    post,
    path = "/admin/keys/rotate",
    operation_id = "rotateSealingKey",
    responses(
        (status = 200, description = "How far it is.", body = RotationView),
    )
)]
pub(super) async fn begin(State(rotation): State<KeyRotation>) -> Json<RotationView> {
    Json(rotation.begin())
}

/// How far the replacement of the sealing key is.
#[utoipa::path(
    get,
    path = "/admin/keys/rotation",
    operation_id = "rotation",
    responses(
        (status = 200, description = "How far it is.", body = RotationView),
    )
)]
pub(super) async fn show(State(rotation): State<KeyRotation>) -> Json<RotationView> {
    Json(rotation.status())
}
