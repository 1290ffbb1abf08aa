//! Real certificates, real TLS, and a client that is as strict as an apiserver.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    rotation::{self, Held, Step, Validity},
    serving::Serving,
    stored::{self, held, pair, perform},
};
use crate::{process::shutdown::Shutdown, webhook::server};

const NAME: &str = "sluice-webhook.sluice-system.svc";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn names() -> BTreeSet<String> {
    [NAME, "127.0.0.1", "::1"].map(str::to_owned).into()
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00.7Z".parse().unwrap()
}

/// The Secret after a step.
fn after(step: Step, before: Option<&Secret>, now: Timestamp) -> Secret {
    let data = perform(step, before, &names(), now).unwrap();
    Secret { data, ..Secret::default() }
}

fn read(secret: &Secret) -> Held {
    held(secret, &provider())
}

fn without(secret: &Secret, key: &str) -> Secret {
    let mut secret = secret.clone();
    secret.data.as_mut().unwrap().remove(key);
    secret
}

fn from_the_other(secret: &Secret, other: &Secret, key: &str) -> Secret {
    let (mut secret, value) = (secret.clone(), other.data.as_ref().unwrap()[key].clone());
    secret.data.as_mut().unwrap().insert(key.to_owned(), value);
    secret
}

#[test]
fn what_is_made_is_read_as_it_was_meant() {
    let now = start();
    let whole = Timestamp::from_second(now.as_second()).unwrap();
    let made = after(Step::Begin, None, now);
    let read = read(&made);
    let serving = read.serving.unwrap();
    assert!(read.signs);
    let lifetime = |of| Validity::starting(whole, of);
    assert_eq!(read.authorities, [lifetime(rotation::AUTHORITY_LIFETIME)]);
    assert_eq!(serving.validity, lifetime(rotation::SERVING_LIFETIME));
    assert_eq!((serving.names, serving.issuer), (names(), Some(0)));
    let until = pair(&made, &provider()).unwrap().until;
    assert_eq!(until, whole + rotation::SERVING_LIFETIME);
    assert!(perform(Step::Keep(now), Some(&made), &names(), now).unwrap().is_none());
}

#[test]
fn what_does_not_belong_together_is_seen() {
    let [one, other] = [after(Step::Begin, None, start()), after(Step::Begin, None, start())];
    assert_eq!(read(&Secret::default()), Held::default());
    assert!(!read(&without(&one, "ca.key")).signs);
    assert!(!read(&from_the_other(&one, &other, "ca.key")).signs);
    for of in [
        without(&one, "tls.crt"),
        without(&one, "tls.key"),
        from_the_other(&one, &other, "tls.key"),
        from_the_other(&one, &other, "tls.crt"),
    ] {
        assert_eq!(read(&of).serving, None);
        assert!(pair(&of, &provider()).is_err());
    }
    let foreign = from_the_other(&one, &other, "ca.crt");
    assert_eq!(read(&foreign).serving.unwrap().issuer, None);
    let garbled = from_the_other(&one, &one, "tls.key");
    let garbled = Secret {
        data: garbled.data.map(|mut data| {
            data.get_mut("ca.crt").unwrap().0.truncate(100);
            data
        }),
        ..garbled
    };
    assert_eq!(read(&garbled).authorities, []);
    // A certificate that is no authority must not become one.
    let leaf = one.data.as_ref().unwrap()["tls.crt"].clone();
    let mut posing = one.clone();
    posing.data.as_mut().unwrap().insert("ca.crt".to_owned(), leaf);
    assert_eq!(read(&posing).authorities, []);
}

#[test]
fn errors_tell_no_secrets() {
    let [one, other] = [after(Step::Begin, None, start()), after(Step::Begin, None, start())];
    let mut garbled = one.clone();
    let data = garbled.data.as_mut().unwrap();
    data.get_mut("tls.key").unwrap().0.truncate(80);
    for (of, reason) in [
        (Secret::default(), "CertificateMissing"),
        (garbled, "CertificateMalformed"),
        (from_the_other(&one, &other, "tls.key"), "CertificateUnusable"),
    ] {
        let Err(error) = pair(&of, &provider()) else { panic!("{reason} is not seen") };
        assert_eq!(error.reason(), reason);
        let told = format!("{error} {error:?}");
        assert!(!told.contains("PRIVATE") && told.len() < 300, "{told}");
    }
    assert_eq!(format!("{:?}", Serving::default()), "Serving");
}

/// A clock for the client: what expires is seen without waiting for it.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Asks as an apiserver does that has this Secret's bundle.
async fn ask(
    address: SocketAddr,
    bundle: &Secret,
    name: &str,
    now: Timestamp,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for authority in stored::authorities(bundle) {
        roots.add(authority).unwrap();
    }
    let config = ClientConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut stream = connecting.await.map_err(|error| error.to_string())?;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn serve(serving: &Serving) -> (SocketAddr, impl AsyncFnOnce()) {
    let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "ok" }));
    let (trigger, shutdown) = Shutdown::triggered();
    let tls = serving.tls(provider()).unwrap();
    let server = tokio::spawn(server::serve(listener, tls, router, shutdown.requested()));
    (address, async move || {
        trigger.request();
        server.await.unwrap();
    })
}

#[tokio::test]
async fn an_apiserver_accepts_what_is_served_all_through_a_rotation() {
    let serving = Serving::default();
    let (address, end) = serve(&serving).await;
    let mut now = start();
    let refused = ask(address, &after(Step::Begin, None, now), NAME, now).await;
    assert!(refused.is_err(), "served without a certificate");

    let mut secret = after(Step::Begin, None, now);
    let stop = now + SignedDuration::from_hours(24 * 800);
    let (mut steps, mut previous) = (Vec::new(), secret.clone());
    while now < stop {
        serving.replace(pair(&secret, &provider()).unwrap().key);
        for name in [NAME, "127.0.0.1", "::1"] {
            ask(address, &secret, name, now).await.unwrap();
        }
        // An apiserver that has not yet seen the last change of the bundle.
        ask(address, &previous, NAME, now).await.unwrap();
        assert!(ask(address, &secret, "other.sluice-system.svc", now).await.is_err());

        match rotation::next(&read(&secret), &names(), true, now) {
            Step::Keep(until) => now = until,
            step => {
                previous = secret.clone();
                secret = after(step, Some(&secret), now);
                steps.push(step);
            }
        }
    }
    for step in [Step::Join, Step::Issue, Step::Forget] {
        assert!(steps.iter().filter(|&&done| done == step).count() > 1, "{steps:?}");
    }
    assert!(!steps.contains(&Step::Begin), "{steps:?}");

    // Another operator's webhook under the same name.
    let stranger = after(Step::Begin, None, now);
    assert!(ask(address, &stranger, NAME, now).await.is_err());
    // Were it never renewed.
    let late = now + rotation::SERVING_LIFETIME;
    assert!(ask(address, &secret, NAME, late).await.is_err());
    end().await;
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_nobody_up() {
    let serving = Serving::default();
    let (address, end) = serve(&serving).await;
    let secret = after(Step::Begin, None, start());
    serving.replace(pair(&secret, &provider()).unwrap().key);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    ask(address, &secret, NAME, start()).await.unwrap();
    end().await;
}
