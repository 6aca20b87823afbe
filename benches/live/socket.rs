//! A WebSocket client with little overhead: raw frames (RFC 6455), masked with zeros, read into one small buffer.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The opcode of messages that [`Socket::read`] returns. The socket handles the others itself.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

pub struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Socket {
    /// Connects and initializes graphql-transport-ws.
    pub async fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut received = Vec::with_capacity(512);
        loop {
            let read = stream.read_buf(&mut received).await.unwrap();
            assert!(read > 0, "no handshake");
            if let Some(end) = find(&received, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&received[..end]);
                assert!(head.starts_with("HTTP/1.1 101"), "{head}");
                received.drain(..end + 4);
                break;
            }
        }
        let mut socket = Self { stream, received };
        socket.send(TEXT, br#"{"type":"connection_init"}"#).await;
        let mut is_acknowledged = false;
        while !is_acknowledged {
            socket
                .read(|text| is_acknowledged |= find(text, b"connection_ack").is_some())
                .await;
        }
        socket
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes()).await;
    }

    async fn send(&mut self, operation: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | operation];
        match u16::try_from(payload.len()).unwrap() {
            length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Waits for bytes and passes on every complete text message.
    pub async fn read(&mut self, mut take: impl FnMut(&[u8])) {
        let read = self.stream.read_buf(&mut self.received).await.unwrap();
        assert!(read > 0, "the connection broke off");
        let mut at = 0;
        let mut pings = 0;
        while let Some((operation, begin, end)) = frame(&self.received, at) {
            match operation {
                TEXT => take(&self.received[begin..end]),
                PING => pings += 1,
                CLOSE => panic!(
                    "closed: {}",
                    String::from_utf8_lossy(&self.received[begin..end])
                ),
                _ => {}
            }
            at = end;
        }
        self.received.drain(..at);
        for _ in 0..pings {
            self.send(PONG, b"").await;
        }
    }
}

/// The opcode of the frame that begins here, and the bounds of its payload. `None` while the frame is incomplete.
fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let head = bytes.get(at..)?;
    let (operation, short) = (head.first()? & 0x0f, head.get(1)? & 0x7f);
    let (begin, length) = match short {
        126 => {
            let length: [u8; 2] = head.get(2..4)?.try_into().ok()?;
            (at + 4, usize::from(u16::from_be_bytes(length)))
        }
        127 => {
            let length: [u8; 8] = head.get(2..10)?.try_into().ok()?;
            (at + 10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        length => (at + 2, usize::from(length)),
    };
    let end = begin + length;
    (end <= bytes.len()).then_some((operation, begin, end))
}

/// The position of a byte sequence.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
