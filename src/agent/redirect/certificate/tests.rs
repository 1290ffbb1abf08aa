//! What a kubelet would make of certificates as runtimes have them.

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::*;

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
}

/// Of these hosts, good around [`now`].
fn params(hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = hosts
        .iter()
        .map(|host| match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*host).try_into().unwrap()),
        })
        .collect();
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2024, 1, 1), rcgen::date_time_ymd(2030, 1, 1));
    params
}

fn authority() -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate, Issuer::new(params, key))
}

fn judged(shown: &Certificate, host: &str, trusted: &[&Certificate], now: UnixTime) -> bool {
    let trusted: Vec<_> = trusted.iter().map(|certificate| certificate.der().clone()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    trusts(&[shown.der().clone()], &name, &trusted, now)
}

#[test]
fn only_an_authority_of_the_node_makes_it_trusted() {
    let ((known, issuer), (other, _)) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let hosts = ["127.0.0.1", "10.0.0.7", "::1", "node-1"];
    let issued = params(&hosts).signed_by(&key, &issuer).unwrap();
    for host in hosts {
        assert!(judged(&issued, host, &[&other, &known], now()), "{host}");
    }
    // As containerd makes it: of an authority that is nowhere.
    assert!(!judged(&issued, "127.0.0.1", &[&other], now()));
    assert!(!judged(&issued, "127.0.0.1", &[], now()));
    assert!(!judged(&issued, "127.0.0.2", &[&known], now()), "another host");
    let late = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
    assert!(!judged(&issued, "127.0.0.1", &[&known], late), "expired");
    assert!(!trusts(&[], &ServerName::try_from("node-1").unwrap(), &[], now()));
}

#[test]
fn one_that_is_itself_trusted_may_be_of_any_kind() {
    let key = KeyPair::generate().unwrap();
    let mut params = params(&["127.0.0.1", "node-1"]);
    // As `openssl req -x509` makes them.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    assert!(judged(&own, "127.0.0.1", &[&own], now()) && judged(&own, "node-1", &[&own], now()));
    assert!(!judged(&own, "127.0.0.1", &[&authority().0], now()));
    assert!(!judged(&own, "10.0.0.7", &[&own], now()), "another host");
    let early = UnixTime::since_unix_epoch(Duration::from_secs(1_600_000_000));
    assert!(!judged(&own, "127.0.0.1", &[&own], early), "not yet");
}

#[tokio::test]
async fn the_server_is_asked_for_what_it_shows() {
    let key = KeyPair::generate().unwrap();
    let own = params(&["127.0.0.1"]).self_signed(&key).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], private)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(shown(stream, "127.0.0.1").await, Some(vec![own.der().clone()]));
    // One that speaks no TLS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(plain.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert_eq!(shown(stream, "127.0.0.1").await, None);
}
