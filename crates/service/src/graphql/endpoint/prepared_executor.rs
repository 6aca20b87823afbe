//! Gives each operation its own data before it runs.

use std::sync::Arc;

use async_graphql::{Data, Executor, Request, Response};
use futures::stream::BoxStream;

pub(super) type PrepareData = Arc<dyn Fn(&mut Data) + Send + Sync>;

/// Prepares the data of each operation, for every protocol.
#[derive(Clone)]
pub(super) struct PreparedExecutor<E> {
    pub(super) executor: E,
    pub(super) prepare: Option<PrepareData>,
}

impl<E> PreparedExecutor<E> {
    fn prepared(&self, mut request: Request) -> Request {
        if let Some(prepare) = &self.prepare {
            prepare(&mut request.data);
        }
        request
    }
}

impl<E: Executor> Executor for PreparedExecutor<E> {
    async fn execute(&self, request: Request) -> Response {
        self.executor.execute(self.prepared(request)).await
    }

    fn execute_stream(
        &self,
        request: Request,
        session_data: Option<Arc<Data>>,
    ) -> BoxStream<'static, Response> {
        self.executor
            .execute_stream(self.prepared(request), session_data)
    }
}
