//! How streams are brought to the relay, and how they are let go.

mod going;
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
    agent::cri::{Own, fake::POD},
    api::FailurePolicy,
    process::shutdown::Shutdown,
    relay::{RelaySettings, Upstream},
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

#[tokio::test]
async fn an_agent_that_ends_leaves_nothing_or_what_refuses_streams() {
    let (folder, nft) = nft::tests::script(r#"cat >>"$0.said""#);
    let said = || std::fs::read_to_string(folder.path().join("nft.said")).unwrap_or_default();
    let mut keeper = attached(&nft, FailurePolicy::Open, Instant::now());
    assert!(!keeper.left().is_zero());
    let ends = keeper.leave(Want::Relay(FailurePolicy::Open), &Told::default()).await.unwrap_err();
    assert_eq!(ends.reason, "Ending");
    assert!(keeper.left().is_zero() && said().ends_with(&rules::remove(Family::ALL[0])));

    let mut keeper = attached(&nft, FailurePolicy::Closed, Instant::now());
    keeper.refuse().await;
    assert!(keeper.left().is_zero() && keeper.refusing);
    assert!(said().ends_with(&rules::forget(Family::ALL[1])), "{}", said());
}

#[tokio::test]
async fn a_kernel_that_cannot_be_told_brings_streams_until_its_rule_expires() {
    let (_folder, nft) = nft::tests::script("exit 1");
    let renewed = Instant::now() - LIFETIME + Duration::from_secs(5);
    let mut keeper = attached(&nft, FailurePolicy::Open, renewed);
    let failed = keeper.leave(Want::Relay(FailurePolicy::Open), &Told::default()).await;
    assert_ne!(failed.unwrap_err().reason, "Ending");
    assert!(keeper.left() > Duration::ZERO && keeper.left() <= Duration::from_secs(5));
    let mut keeper = attached(&nft, FailurePolicy::Closed, renewed);
    keeper.refuse().await;
    assert!(keeper.left() > Duration::ZERO);
}

#[test]
fn an_agent_whose_end_would_refuse_streams_waits_for_word_that_nobody_wants_that() {
    let (open, closed) = (Want::Relay(FailurePolicy::Open), Want::Relay(FailurePolicy::Closed));
    for (want, stopped, expected) in
        [(open, 0, true), (Want::Nothing, 0, true), (closed, 2_999, false), (closed, 3_000, true)]
    {
        assert_eq!(ends(want, Duration::from_millis(stopped)), expected, "{want:?} {stopped}");
    }
}
