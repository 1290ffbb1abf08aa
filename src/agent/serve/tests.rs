//! Two agents of a node, as far as they are seen.

use super::*;
use crate::{
    agent::redirect::{Standing, Want},
    process::{health::Need, shutdown::Trigger},
    relay::{RelaySettings, Upstream},
};

/// What an agent of this name shows, served; dropping the trigger tells it to end.
fn agent(folder: &Path, name: &str) -> (Trigger, Shown, Need) {
    let relay = Relay::new(RelaySettings::new(Upstream::Fixed("127.0.0.1:1".parse().unwrap())));
    let (trigger, shutdown) = Shutdown::triggered();
    let shown = Shown {
        metrics: Metrics::new(relay.clone(), watch::channel(Standing::new(Want::Nothing)).1),
        relay,
        health: Health::default(),
        shutdown,
        sockets: Sockets::new(folder, name),
    };
    tokio::spawn(serve_socket(shown.sockets.bind().unwrap(), shown.clone()));
    let reported = shown.health.ready_with("nothing is reported");
    (trigger, shown, reported)
}

#[tokio::test]
async fn each_agent_answers_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made");
    let missing = streams(&folder).await.unwrap_err();
    assert!(missing.to_string().starts_with(&folder.display().to_string()), "{missing}");
    let (_one, _, reported) = agent(&folder, "one");
    let (_two, _, _unreported) = agent(&folder, "two");
    reported.met(true);
    probed(&folder, "one", Probe::Ready).await.unwrap();
    let unready = probed(&folder, "two", Probe::Ready).await.unwrap_err();
    assert_eq!(unready.reason(), "Unhealthy");
    assert!(unready.to_string().contains("nothing is reported"), "{unready}");
    probed(&folder, "two", Probe::Alive).await.unwrap();
    let gone = probed(&folder, "three", Probe::Alive).await.unwrap_err();
    assert_eq!(gone.reason(), "AgentSocket");
    assert_eq!(streams(&folder).await.unwrap(), []);
}

#[tokio::test]
async fn an_agent_that_was_killed_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("killed.sock");
    drop(UnixListener::bind(&left).unwrap());
    assert!(streams(folder.path()).await.is_err(), "nobody has answered");
    let (_one, shown, _) = agent(folder.path(), "one");
    assert!(!left.exists());
    // An earlier process of the same pod has left its own.
    drop(UnixListener::bind(&left).unwrap());
    assert_eq!(streams(folder.path()).await.unwrap(), []);
    assert_eq!(shown.sockets.draining().await, 0);
    drop(shown.sockets.bind().unwrap());
}

#[tokio::test]
async fn the_port_is_taken_once_it_is_free_and_given_to_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (_one, shown, _) = agent(folder.path(), "one");
    let other = http::bind_everywhere(0).await.unwrap();
    let port = other.local_addr().unwrap().port();
    let (roles, role) = watch::channel(Role::Acting);
    let serving = tokio::spawn(serve_metrics(port, shown, role));
    drop(other);
    let page = async {
        loop {
            if let Ok(stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(60), page).await.unwrap());
    roles.send_replace(Role::Succeeded);
    serving.await.unwrap();
    http::bind_everywhere(port).await.unwrap();
}
