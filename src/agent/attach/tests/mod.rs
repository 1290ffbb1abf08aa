//! How streams are brought to the relay, and how they are let go.

mod kernel;
mod net;
mod node;

use std::net::{IpAddr, Ipv4Addr};

use super::{
    keeper::Installed,
    rules::{Family, LIFETIME},
    state::Streams,
    *,
};
use crate::{
    agent::cri::{Own, played::POD},
    api::FailurePolicy,
    controller::shutdown::Shutdown,
    relay::{Settings as RelaySettings, Upstream},
};

const STREAMING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 34567);

/// Our own container, as the runtime that is played knows it.
fn own() -> Own {
    Own { pod_uid: POD.0.to_owned(), container: POD.1.to_owned() }
}

/// One whose rules are there, and were renewed then.
fn attached(nft: &Nft, policy: FailurePolicy, renewed: Instant) -> Keeper {
    let relay = Relay::new(RelaySettings::new(Upstream::Fixed(STREAMING)));
    let listeners = vec!["127.0.0.1:15190".parse().unwrap()];
    let mut keeper = Keeper::new(listeners, nft.clone(), relay);
    keeper.installed = Installed::For(vec![STREAMING], policy);
    keeper.refusing = policy == FailurePolicy::Closed;
    keeper.proven.insert(STREAMING, renewed);
    keeper
}

fn wish(failure_policy: FailurePolicy) -> watch::Receiver<Option<Proxy>> {
    watch::channel(Some(Proxy { failure_policy, ..Proxy::default() })).1
}

#[tokio::test]
async fn connections_are_taken_until_the_kernel_sends_none() {
    for (policy, expected) in [
        (FailurePolicy::Open, rules::remove(Family::ALL[0])),
        (FailurePolicy::Closed, rules::forget(Family::ALL[1])),
    ] {
        let (folder, nft) =
            nft::tests::script(r#"cat >>"$0.said"; until [ -e "$0.go" ]; do sleep 0.01; done"#);
        let said = || std::fs::read_to_string(folder.path().join("nft.said")).unwrap_or_default();
        let (unattached, stop_taking) = Shutdown::triggered();
        let mut keeper = attached(&nft, policy, Instant::now());
        let mut wishes = wish(policy);
        let letting_go = tokio::spawn(async move { keeper.let_go(&mut wishes, &unattached).await });
        while said().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!stop_taking.is_requested(), "the kernel still sends some");
        std::fs::write(folder.path().join("nft.go"), "").unwrap();
        stop_taking.requested().await;
        assert!(said().ends_with(&expected), "{policy:?}: {}", said());
        letting_go.abort();
    }
}

#[tokio::test]
async fn a_kernel_that_cannot_be_told_sends_connections_until_its_rule_expires() {
    let (_folder, nft) = nft::tests::script("exit 1");
    for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
        let renewed = Instant::now() - LIFETIME + Duration::from_millis(100);
        let (unattached, stop_taking) = Shutdown::triggered();
        let mut keeper = attached(&nft, policy, renewed);
        let mut wishes = wish(policy);
        let letting_go = tokio::spawn(async move { keeper.let_go(&mut wishes, &unattached).await });
        stop_taking.requested().await;
        assert!(renewed.elapsed() >= LIFETIME, "{policy:?}: {:?}", renewed.elapsed());
        letting_go.abort();
    }
}
