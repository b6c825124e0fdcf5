//! When the certificate of a PostgreSQL server ends, for metrics: from that moment nobody connects any more.
//!
//! The driver does not show the certificate that it was shown. So once an hour somebody comes who wants to see
//! nothing else:
//!
//! ```text
//! SSLRequest ──▶   ◀── S   ◀── TLS, with the certificates ──▶   goodbye
//! ```
//!
//! The server logs nothing of a client that goes there. Nothing is told to it either, and so it may be
//! anybody: whom the process speaks to, the driver judges.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::DatabaseUrl;
use crate::ids::NodeName;
use crate::metrics::{Gathered, Source};

/// Certificates live for weeks at least.
const EVERY: Duration = Duration::from_hours(1);

/// The database was away, or did not answer in time.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// Connecting, asking and the handshake together.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Its length, and 1234.5679 where a version stands else.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Looks for as long as it lives. Shows nothing where no certificate is verified: of a file, or by another
/// `sslmode` than `verify-ca` and `verify-full`.
#[derive(Debug)]
pub struct CertificateSource {
    node: String,
    /// Unix seconds; 0: none was seen.
    expires_s: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
}

impl CertificateSource {
    /// Of the process that `node` names; on the runtime that it is called on.
    pub fn start(url: &DatabaseUrl, node: &NodeName) -> Self {
        let expires_s = Arc::new(AtomicU64::new(0));
        let server = url.postgres().and_then(|options| Server::of(&options));
        let task = server.map(|server| tokio::spawn(watch(server, expires_s.clone())));
        Self {
            node: node.to_string(),
            expires_s,
            task,
        }
    }
}

impl Drop for CertificateSource {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Source for CertificateSource {
    fn gather(&self, gathered: &mut Gathered) {
        let expires_s = self.expires_s.load(Ordering::Relaxed);
        if expires_s > 0 {
            gathered.node("process", &self.node).gauge(
                "database_certificate_expires_seconds",
                "When the first of the certificates that the database shows ends, in Unix seconds.",
                expires_s,
            );
        }
    }
}

async fn watch(server: Server, expires_s: Arc<AtomicU64>) {
    loop {
        let looked = timeout(LOOK_MAX, server.certificates()).await;
        let wait = match looked {
            Ok(Ok(certificates)) => {
                expires_s.store(first_end_s(&certificates).unwrap_or(0), Ordering::Relaxed);
                EVERY
            }
            // Why the database cannot be reached, those who need it say.
            Ok(Err(_)) | Err(_) => AGAIN_AFTER,
        };
        sleep(wait).await;
    }
}

/// Of all that can be read.
fn first_end_s(certificates: &[CertificateDer<'_>]) -> Option<u64> {
    let ends = certificates.iter().filter_map(|certificate| {
        let certificate = Certificate::from_der(certificate).ok()?;
        let not_after = certificate.tbs_certificate.validity.not_after;
        Some(not_after.to_unix_duration().as_secs())
    });
    ends.min()
}

/// One whose certificate is verified: to others it may have ended.
#[derive(Debug)]
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn of(options: &PgConnectOptions) -> Option<Self> {
        let mode = options.get_ssl_mode();
        let verifies = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let by_tcp = options.get_socket().is_none();
        (verifies && by_tcp).then(|| Self {
            host: options.get_host().to_owned(),
            port: options.get_port(),
        })
    }

    /// Those that it shows; empty: it speaks no TLS.
    async fn certificates(&self) -> io::Result<Vec<CertificateDer<'static>>> {
        let host = self.host.trim_matches(['[', ']']);
        let mut stream = TcpStream::connect((host, self.port)).await?;
        stream.write_all(&SSL_REQUEST).await?;
        if stream.read_u8().await? != b'S' {
            return Ok(vec![]);
        }
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let mut stream = connector()?.connect(name, stream).await?;
        let (_, connection) = stream.get_ref();
        let certificates = connection.peer_certificates().unwrap_or_default().to_vec();
        // What there was to see was seen.
        let _ = stream.shutdown().await;
        Ok(certificates)
    }
}

fn connector() -> io::Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate: it is only to be seen.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use servers::{PostgresServer, Role};
    use tokio::time::Instant;

    use super::*;

    /// That of rcgen ends with the year 4095.
    const ENDS_S: u64 = 67_090_118_400;

    #[tokio::test]
    async fn the_end_of_the_certificate_that_the_server_shows_is_seen() {
        let server = PostgresServer::start("").unwrap();
        let source = |parameters: &str| {
            let url = format!("{}?{parameters}", server.tcp_url("postgres", Role::Login));
            CertificateSource::start(&url.parse().unwrap(), &"logic-1".parse().unwrap())
        };
        let seen = |source: &CertificateSource| source.expires_s.load(Ordering::Relaxed);
        let url = server.tcp_url("postgres", Role::Login) + "?sslmode=verify-full";
        let without_tls = Server::of(&url.parse().unwrap()).unwrap();
        assert_eq!(without_tls.certificates().await.unwrap(), []);
        server.require_tls().unwrap();
        let source_of_it = source("sslmode=verify-full");
        let begun = Instant::now();
        while seen(&source_of_it) == 0 {
            assert!(begun.elapsed() < LOOK_MAX, "it was not looked at");
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(seen(&source_of_it), ENDS_S);
        for nothing_to_see in [
            "sslmode=require",
            "sslmode=verify-full&host=/run/postgresql",
        ] {
            assert!(source(nothing_to_see).task.is_none(), "{nothing_to_see}");
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_passed_over() {
        assert_eq!(first_end_s(&[CertificateDer::from(vec![0x30, 0x00])]), None);
    }
}
