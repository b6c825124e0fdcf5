//! The HTTP port: few connections, each short. Nobody waits for a place: whoever has had one longest gives it up,
//! so that a probe is answered whatever others do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_core::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::page::Page;
use super::{MetricsSettings, Source, Sources};
use crate::codes::Code;
use crate::process::listen::listen;

/// One Prometheus, a second one, a probe, and a person. For one more the oldest goes: who asks is answered
/// within milliseconds, so it is one that says nothing, or does not read.
const CONNECTIONS_MAX: usize = 16;

/// From its being accepted a connection has so long, whatever it asks.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// More header than any scraper sends.
const HEADER_BYTES_MAX: usize = 16 * 1_024;

/// After an accept that failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen for readers of metrics on {address}")]
pub struct ListenError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// The port of a process. Dropped, it closes.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves the pages on the runtime that it is called on; `None`: the settings name no address.
    ///
    /// # Errors
    /// The address is in use, or none of this machine.
    pub fn start(
        settings: &MetricsSettings,
        sources: Vec<Box<dyn Source>>,
    ) -> BoxFuture<'_, Result<Option<Self>, ListenError>> {
        Box::pin(async move {
            let Some(wanted) = settings.listen else {
                return Ok(None);
            };
            let failed = |source| ListenError {
                address: wanted,
                source,
            };
            let listener = listen(wanted, &[]).map_err(failed)?;
            let listener = TcpListener::from_std(listener.into()).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            tracing::info!(code = Code::MetricsShown.number(), %address, "metrics are shown");
            let task = tokio::spawn(accept(listener, sources.into()));
            Ok(Some(Self { address, task }))
        })
    }

    /// With the port that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, sources: Sources) {
    let mut served = VecDeque::new();
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                make_room(&mut served).await;
                let serving = serve(stream, sources.clone());
                // Whoever is slow is cut off; what it asked it can ask again.
                served.push_back(tokio::spawn(timeout(CONNECTION_MAX, serving)));
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(
                        code = Code::MetricsAcceptFailed.number(),
                        %error,
                        "cannot accept a connection to the metrics"
                    );
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// For one more connection; the oldest stands first.
async fn make_room<T>(served: &mut VecDeque<JoinHandle<T>>) {
    served.retain(|connection| !connection.is_finished());
    while served.len() >= CONNECTIONS_MAX
        && let Some(oldest) = served.pop_front()
    {
        oldest.abort();
        // Until it is closed, it counts.
        let _ = oldest.await;
    }
}

async fn serve(stream: TcpStream, sources: Sources) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &sources);
        async { Ok::<_, Infallible>(response) }
    });
    // A peer that breaks off, or speaks no HTTP, gets nothing further.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

fn respond(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let page = match is_read {
        true => Page::of(request.uri().path(), sources),
        false => Page::plain(405, "only GET\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if !is_read {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn started() -> Server {
        let settings = MetricsSettings {
            listen: Some(([127, 0, 0, 1], 0).into()),
            ..MetricsSettings::default()
        };
        Server::start(&settings, vec![]).await.unwrap().unwrap()
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn pages_are_read_and_nothing_else_is_done() {
        let server = started().await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let ready = ask(server.address(), &get("/readyz")).await;
        assert!(
            ready.starts_with("HTTP/1.1 200") && ready.ends_with("ready\n"),
            "{ready}"
        );
        let metrics = ask(server.address(), &get("/metrics?a=b")).await;
        assert!(
            metrics.contains("application/openmetrics-text"),
            "{metrics}"
        );
        let posted = "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        let refused = ask(server.address(), posted).await;
        assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
        let garbage = ask(server.address(), "\x16\x03\x01 hello\r\n\r\n").await;
        assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        let endless = format!(
            "GET / HTTP/1.1\r\nx: {}\r\n\r\n",
            "y".repeat(HEADER_BYTES_MAX)
        );
        let refused = ask(server.address(), &endless).await;
        assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
    }

    #[tokio::test]
    async fn a_probe_does_not_wait_for_those_who_say_nothing_or_not_all() {
        let server = started().await;
        let mut silent = vec![];
        for said in ["", "GET /metrics HTTP/1.1\r\n"].repeat(CONNECTIONS_MAX) {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        for path in ["/healthz", "/readyz"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            let answer = timeout(CONNECTION_MAX / 2, ask(server.address(), &request));
            let answer = answer
                .await
                .expect("an answer while they have their places");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let (oldest, newest) = (&mut silent[0], 2 * CONNECTIONS_MAX - 1);
        assert_eq!(oldest.read(&mut [0]).await.unwrap_or(0), 0);
        let mut nothing = [0];
        let read = silent[newest].try_read(&mut nothing);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_public_address_is_refused_unless_it_is_meant() {
        let mut settings = MetricsSettings {
            listen: Some(([0, 0, 0, 0], 9_464).into()),
            ..MetricsSettings::default()
        };
        assert_eq!(settings.check().len(), 1);
        settings.listen_publicly = true;
        assert_eq!(settings.check(), Vec::<String>::new());
    }
}
