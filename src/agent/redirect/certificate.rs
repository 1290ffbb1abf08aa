//! The certificate of a streaming server that speaks TLS, and whether the kubelet trusts it.
//!
//! An apiserver that follows a redirect looks at no certificate. A kubelet that proxies does, and
//! has nothing to go by but what the node trusts (`proxyStream` in `pkg/kubelet/server/server.go`
//! dials without a transport of its own). With `enable_tls_streaming` containerd makes a certificate
//! and an authority for itself, and no node trusts that authority. On real kubelets 1.18 and 1.20 every
//! exec then ended with `x509: certificate signed by unknown authority`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

use super::probe;

/// Rules that are renewed meanwhile live longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a kubelet that connects to this host's streaming server trusts what it shows; `None`
/// where that could not be seen.
pub async fn is_trusted(
    address: SocketAddr,
    host: &str,
    authorities: &[CertificateDer<'static>],
) -> Option<bool> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let shown = async { shown(probe::connect(address).await.ok()?, host).await };
    let shown = tokio::time::timeout(TIMEOUT, shown).await.ok()??;
    Some(trusts(&shown, &name, authorities, UnixTime::now()))
}

/// TLS with a server whatever it shows.
///
/// # Errors
/// Where they do not come to an understanding.
pub async fn connect<S>(stream: S, host: &str) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The certificates that the server shows, its own first.
async fn shown(stream: TcpStream, host: &str) -> Option<Vec<CertificateDer<'static>>> {
    let stream = connect(stream, host).await.ok()?;
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates()?.iter().map(|shown| shown.clone().into_owned()).collect())
}

fn trusts(
    shown: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    authorities: &[CertificateDer<'static>],
    now: UnixTime,
) -> bool {
    let Some((own, between)) = shown.split_first() else { return false };
    // Go takes one that is itself among the trusted, whatever it may be used for; webpki does not.
    if authorities.contains(own) {
        return is_for(own, name, now);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
    verifier.is_ok_and(|verifier| verifier.verify_server_cert(own, between, name, &[], now).is_ok())
}

/// Whether a certificate names the host, and is good now.
fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(certificate) else { return false };
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    if !now.is_some_and(|now| read.validity().is_valid_at(now)) {
        return false;
    }
    let names = read.subject_alternative_name().ok().flatten();
    let mut names = names.iter().flat_map(|extension| &extension.value.general_names);
    names.any(|known| match (known, name) {
        (GeneralName::DNSName(known), ServerName::DnsName(name)) => {
            known.eq_ignore_ascii_case(name.as_ref())
        }
        (GeneralName::IPAddress(known), ServerName::IpAddress(name)) => {
            match std::net::IpAddr::from(*name) {
                std::net::IpAddr::V4(ip) => **known == ip.octets(),
                std::net::IpAddr::V6(ip) => **known == ip.octets(),
            }
        }
        _ => false,
    })
}

/// Takes every certificate: it is only looked at, and nothing is said over the connection that
/// anybody must not hear.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
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
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, own, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, own, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
