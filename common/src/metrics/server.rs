//! The HTTP port: few connections, each short. Whoever else wants in waits in the kernel's backlog.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::page::Page;
use super::{MetricsSettings, Source, Sources};
use crate::codes::Code;
use crate::process::listen::listen;

/// One Prometheus, a second one, a probe, and a person.
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
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut is_failing = false;
    loop {
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                let sources = sources.clone();
                tokio::spawn(async move {
                    // Whoever is slow is cut off; what it asked it can ask again.
                    let _ = timeout(CONNECTION_MAX, serve(stream, sources)).await;
                    drop(place);
                });
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
    async fn those_who_say_nothing_do_not_keep_others_out_for_ever() {
        let server = started().await;
        let mut silent = vec![];
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(server.address()).await.unwrap());
        }
        let answer = ask(server.address(), "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = timeout(5 * CONNECTION_MAX, answer).await.unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
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
