//! Connections on the loopback interface. Their number is limited, and each has its own task, so that a bad one affects
//! only itself.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    api::{Answer, Broker},
    wire::{Received, WireError, frame},
};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 256;
/// Most connections. A client has two or three.
const MOST_CONNECTIONS: usize = 1_000;
/// Most unanswered requests of one connection. Further ones wait in its socket.
const IN_FLIGHT: usize = 64;
/// How long to wait if the system has no more file descriptors.
const PAUSE_AFTER_REFUSED_ACCEPT: Duration = Duration::from_millis(100);
/// How often bad connections are logged, with their number.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// Listens on the loopback interface; port 0 lets the system choose.
///
/// # Errors
/// The error of the operating system, usually that the port is in use.
pub(crate) fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // A restarted broker must not wait for the connections of its predecessor.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// Serves connections forever. Dropping the future ends every connection.
pub(crate) async fn serve(listener: TcpListener, broker: Arc<Broker>) {
    let large = Arc::new(Semaphore::new(frame::LARGE_AT_ONCE));
    let groups = broker.groups.clone();
    let mut watched = std::pin::pin!(groups.watch());
    let mut connections = JoinSet::new();
    let mut complaints = Complaints::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= MOST_CONNECTIONS => {
                    complaints.hear("there are too many connections");
                }
                Ok((stream, _)) => {
                    let (broker, large) = (Arc::clone(&broker), Arc::clone(&large));
                    connections.spawn(serve_one(stream, broker, large));
                }
                Err(error) => {
                    complaints.hear(&format!("a connection could not be accepted: {error}"));
                    tokio::time::sleep(PAUSE_AFTER_REFUSED_ACCEPT).await;
                }
            },
            () = &mut watched => {}
            Some(ended) = connections.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(Ended::Io(error))) if is_gone(&error) => {}
                Ok(Err(error)) => complaints.hear(&error.to_string()),
                Err(error) => complaints.hear(&format!("a defect of the broker: {error}")),
            },
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

async fn serve_one(
    mut stream: TcpStream,
    broker: Arc<Broker>,
    large: Arc<Semaphore>,
) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let (mut incoming, mut outgoing) = stream.split();
    let (taken, mut to_answer) = mpsc::channel::<Answer>(IN_FLIGHT);
    let take = async {
        while let Some(request) = frame::read(&mut incoming, &large).await? {
            let answer = broker.take(Received::read(request)?).await?;
            if taken.send(answer).await.is_err() {
                break;
            }
        }
        Ok::<_, Ended>(())
    };
    let answer = async {
        while let Some(answer) = to_answer.recv().await {
            if let Some(answer) = answer.await? {
                frame::write(&mut outgoing, &answer).await?;
            }
        }
        Ok::<_, Ended>(())
    };
    // A client that has closed its connection wants no more answers. If it was joining a group, the group must not
    // count on it.
    tokio::select! {
        ended = take => ended,
        ended = answer => ended,
    }
}

/// Logs errors of connections at a limited rate.
#[derive(Debug, Default)]
struct Complaints {
    said: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    fn hear(&mut self, reason: &str) {
        if self.said.is_some_and(|said| said.elapsed() < COMPLAINTS) {
            self.unsaid += 1;
            return;
        }
        tracing::warn!(reason, others = self.unsaid, "a connection was closed");
        *self = Self {
            said: Some(Instant::now()),
            unsaid: 0,
        };
    }
}
