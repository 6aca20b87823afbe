//! Bodies of the REST route that creates customers, on its own store. A body must be accepted, or refused with a
//! problem.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use axum::{Extension, Router};
use tandem_accounts::encoding::PersonalData;
use tandem_accounts::service;
use tandem_accounts::stores::{NAMES, Stores};
use tandem_authentication::Access;
use tandem_event_path::commands::Gate;
use tandem_event_path::sealing::Sealer;
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::{HttpSettings, middleware::with_middleware};
use tower::ServiceExt;

use super::Target;
use crate::corpus::committed;

/// The published sample.
const SAMPLE: &[u8] =
    include_bytes!("../../../../subgraphs/accounts/src/rest/sample-customer.json");

pub(super) const BODIES: Target = Target {
    name: "rest",
    open: || {
        let accounts = Accounts::start();
        assert_eq!(accounts.create(SAMPLE).0, StatusCode::CREATED);
        Box::new(move |input| accounts.takes_or_refuses(input))
    },
    seeds: || {
        let mut seeds = committed("rest");
        seeds.push(SAMPLE.to_vec());
        seeds
    },
};

/// The routes without a network.
struct Accounts {
    runtime: tokio::runtime::Runtime,
    router: Router,
    _folder: tempfile::TempDir,
}

impl Accounts {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(&[7; 32]);
        let opened = runtime.block_on(Stores::embedded(NAMES, folder.path(), &sealer));
        let (stores, ..) = opened.unwrap();
        let routes = runtime.block_on(async {
            let (personal_data, shutdown) = (PersonalData::Sealed, Shutdown::new());
            service::routes(
                &stores,
                None,
                Gate::open(),
                &sealer,
                personal_data,
                &shutdown,
            )
        });
        let open = routes.layer(Extension(Access::Open));
        Self {
            router: with_middleware(open, &HttpSettings::default()),
            runtime,
            _folder: folder,
        }
    }

    /// The status, media type and body of the response.
    fn create(&self, body: &[u8]) -> (StatusCode, String, Bytes) {
        let request = Request::post("/accounts/customer/create")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_vec()))
            .unwrap();
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            let kind = answer.headers().get(header::CONTENT_TYPE);
            let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
            let body = axum::body::to_bytes(answer.into_body(), 1 << 24).await;
            (status, kind, body.unwrap())
        })
    }

    fn takes_or_refuses(&self, input: &[u8]) {
        let (status, kind, body) = self.create(input);
        let shown = String::from_utf8_lossy(input);
        match status.as_u16() {
            201 => assert_eq!(body, "Customer account created!", "{shown}"),
            // 503: too many changes of one customer are pending, because no relay clears them here.
            400 | 422 | 503 => assert_eq!(kind, "application/problem+json", "{shown}"),
            other => panic!("{other}: {shown}"),
        }
    }
}
