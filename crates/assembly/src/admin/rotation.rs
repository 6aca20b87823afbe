//! Replaces the sealing key while the service runs: data that older keys have sealed is sealed with the newest key,
//! part by part and page by page.
//!
//! The store's registry has the progress, so that the rotation continues there after an interruption. It repeats all
//! parts until a pass finds nothing to seal. Only then the store records that the older keys are no longer needed.

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

/// The name under which the registry keeps the progress.
const PLACE: &str = "sealing-key-rotation";
/// Most passes until one finds nothing. Other instances may still seal with an older key meanwhile.
const PASSES: u32 = 16;
/// How many ids of objects that do not open are reported.
const NAMED: usize = 10;
/// The pauses while the store or the log is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The result of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewrappedPage {
    /// How many objects were examined.
    pub looked_at: u64,
    /// How many of them were sealed with the newest key.
    pub rewrapped: u64,
    /// How many were published again unchanged: the store had the newest form already, but the log did not.
    pub republished: u64,
    /// The ids of objects with data that none of the keys opens.
    pub unopened: Vec<String>,
    /// The last id of the page; `None` if there are no more pages.
    pub last: Option<String>,
}

/// One kind of object with data that the sealing key has sealed.
#[async_trait]
pub trait Rewraps: Send + Sync + 'static {
    /// The name of the kind, such as `customers`.
    fn name(&self) -> &'static str;

    /// Processes one page of objects with ids greater than `after`.
    ///
    /// # Errors
    /// If the store or the log is unavailable. Processing the page again does no harm.
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
    /// Whether the rotation is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.begun_at.is_some() && self.ended_at.is_none() && self.failed.is_none()
    }
}

/// The position of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RotationPlace {
    /// The fingerprint of the newest key.
    key: String,
    part: usize,
    after: Option<String>,
    /// How many objects were sealed anew or published again in this pass.
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
    /// The name and the key ring of a service that claims topics, to renew its claim.
    claim: Option<(&'static str, KeyRing)>,
    shutdown: Shutdown,
    view: Mutex<RotationView>,
}

impl KeyRotation {
    /// Processes these parts with this sealer. With `claim` the service's claim of the topics names the newest key
    /// afterwards.
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

    /// The routes `POST /admin/keys/rotate`, which starts or continues the rotation, and `GET /admin/keys/rotation`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/keys/rotate", post(begin))
            .route("/admin/keys/rotation", get(show))
            .with_state(self)
    }

    /// Continues an interrupted rotation in the background.
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

    /// Starts the rotation, unless it is running.
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

    /// The progress of the rotation.
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

    /// Retries until `work` succeeds; `None` when the service shuts down.
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
            // Data from a deposed primary may be stale, so it cannot show that everything is done.
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
