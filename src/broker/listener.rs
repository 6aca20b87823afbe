//! Accepts connections and gives each the routes of the protocol.

use std::{
    io::{Error, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use rama::{
    Context, Layer as _, Service as _,
    layer::{MapErrLayer, MapStateLayer},
};
use tansu_broker::{
    coordinator::group::administrator::Controller,
    service::{auth, coordinator, storage as routes},
};
use tansu_sans_io::{
    ApiKey as _, DeleteRecordsRequest, DeleteRecordsResponse, ErrorCode, FetchRequest,
    ProduceRequest,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};
use tansu_service::{
    BytesFrameLayer, FrameRequestLayer, FrameRouteBuilder, FrameRouteService, ResponseService,
    TcpBytesLayer, TcpContext, TcpContextLayer,
};
use tansu_storage::{FetchService, ProduceService, Storage};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tracing::{debug, warn};

use super::{
    BrokerError,
    groups::{self, Groups},
    long_poll::{AnnounceLayer, Arrivals, LongPollLayer},
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;
/// How long to wait when the system has no more file descriptors.
const PAUSE_AFTER_REFUSED_ACCEPT: Duration = Duration::from_millis(100);

/// Listens on the loopback interface.
///
/// # Errors
///
/// What the system answers, above all that the port is taken.
pub(super) fn bind(port: u16) -> Result<TcpListener, Error> {
    let socket = TcpSocket::new_v4()?;
    // A broker that starts again must not wait for the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// Serves connections for ever. Dropping the future ends every connection.
pub(super) async fn serve<S>(
    listener: TcpListener,
    cluster: &str,
    storage: S,
) -> Result<(), BrokerError>
where
    S: Storage,
{
    let groups = Groups::new(Controller::with_storage(storage.clone())?);
    let mut group_ticks = tokio::time::interval(groups::TICK);
    group_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let arrivals = Arrivals::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE_AFTER_REFUSED_ACCEPT).await;
                        continue;
                    }
                };
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection was gone before it was served");
                    continue;
                }
                let service = (
                    TcpContextLayer::new(TcpContext::default().cluster_id(Some(cluster.to_owned()))),
                    TcpBytesLayer::default(),
                    BytesFrameLayer::default(),
                )
                    .into_layer(route(storage.clone(), groups.clone(), arrivals.clone())?);
                connections.spawn(async move {
                    match service.serve(Context::default(), stream).await {
                        Err(tansu_broker::Error::Io(error)) if closed_by_client(&error) => {}
                        Err(error) => warn!(%error, "a connection was closed after a request that could not be served"),
                        Ok(()) => {}
                    }
                });
            }
            _ = group_ticks.tick() => groups.tick(),
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a connection ended in a defect of the broker");
                }
            }
        }
    }
}

fn closed_by_client(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

type Builder = FrameRouteBuilder<(), tansu_broker::Error>;

fn route<S>(
    storage: S,
    groups: Groups<Controller<S>>,
    arrivals: Arrivals,
) -> Result<FrameRouteService<(), tansu_broker::Error>, tansu_broker::Error>
where
    S: Storage,
{
    let unchanged = [
        routes::add_offsets_to_txn,
        routes::add_partitions_to_txn,
        routes::consumer_group_describe,
        routes::create_topics,
        routes::delete_groups,
        routes::delete_topics,
        routes::describe_cluster,
        routes::describe_configs,
        routes::describe_groups,
        routes::describe_topic_partitions,
        routes::find_coordinator,
        routes::incremental_alter_configs,
        routes::init_producer_id,
        routes::list_groups,
        routes::list_offsets,
        routes::list_partition_reassignments,
        routes::metadata,
        routes::txn_offset_commit_request,
    ]
    .iter()
    .try_fold(FrameRouteService::<(), _>::builder(), |builder, service| {
        service(builder, storage.clone())
    })?;
    let with_groups = coordinator::services(unchanged, groups)?;
    let with_handshake = auth::services(with_groups)?;
    let with_fetch = fetch(with_handshake, storage.clone(), arrivals.clone())?;
    let with_produce = produce(with_fetch, storage, arrivals)?;
    refuse_delete_records(with_produce)?
        .build()
        .map_err(Into::into)
}

fn fetch<S>(
    builder: Builder,
    storage: S,
    arrivals: Arrivals,
) -> Result<Builder, tansu_broker::Error>
where
    S: Storage,
{
    let service = (
        MapErrLayer::new(tansu_broker::Error::from),
        MapStateLayer::new(|_| storage),
        FrameRequestLayer::<FetchRequest>::new(),
        LongPollLayer::new(arrivals),
    )
        .into_layer(FetchService);
    Ok(builder.with_route(FetchRequest::KEY, service.boxed())?)
}

fn produce<S>(
    builder: Builder,
    storage: S,
    arrivals: Arrivals,
) -> Result<Builder, tansu_broker::Error>
where
    S: Storage,
{
    let service = (
        MapErrLayer::new(tansu_broker::Error::from),
        MapStateLayer::new(|_| storage),
        FrameRequestLayer::<ProduceRequest>::new(),
        AnnounceLayer::new(arrivals),
    )
        .into_layer(ProduceService);
    Ok(builder.with_route(ProduceRequest::KEY, service.boxed())?)
}

/// The storage has no such operation and would die of the request.
fn refuse_delete_records(builder: Builder) -> Result<Builder, tansu_broker::Error> {
    let service = FrameRequestLayer::<DeleteRecordsRequest>::new().into_layer(
        ResponseService::new(|_, request: DeleteRecordsRequest| {
            let topics = request
                .topics
                .unwrap_or_default()
                .into_iter()
                .map(|topic| {
                    let partitions = topic
                        .partitions
                        .unwrap_or_default()
                        .into_iter()
                        .map(|partition| {
                            DeleteRecordsPartitionResult::default()
                                .partition_index(partition.partition_index)
                                .low_watermark(-1)
                                .error_code(ErrorCode::PolicyViolation.into())
                        })
                        .collect();
                    DeleteRecordsTopicResult::default()
                        .name(topic.name)
                        .partitions(Some(partitions))
                })
                .collect();
            Ok::<_, tansu_broker::Error>(
                DeleteRecordsResponse::default()
                    .throttle_time_ms(0)
                    .topics(Some(topics)),
            )
        }),
    );
    Ok(builder.with_route(DeleteRecordsRequest::KEY, service.boxed())?)
}
