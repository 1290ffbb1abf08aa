//! How streams are let go.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::{
    controller::shutdown::Shutdown,
    relay::{Settings as RelaySettings, Upstream},
};

const STREAMING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 34567);

/// One whose rules are there, and were renewed then.
fn attached(nft: &Nft, policy: FailurePolicy, renewed: Instant) -> Attachment {
    let settings = Settings {
        relay_port: 15190,
        nft: nft.0.clone(),
        cri_socket: None,
        own: Own { pod_uid: String::new(), container: String::new() },
    };
    let relay = Relay::new(RelaySettings::new(Upstream::Fixed(STREAMING)));
    let mut attachment = Attachment::new(settings, Host::new("/nonexistent".into()), relay);
    attachment.installed = Installed::For(STREAMING, policy);
    attachment.refusing = policy == FailurePolicy::Closed;
    attachment.renewed = Some(renewed);
    attachment
}

fn wish(failure_policy: FailurePolicy) -> watch::Receiver<Option<Proxy>> {
    watch::channel(Some(Proxy { failure_policy, ..Proxy::default() })).1
}

/// containerd may know our container, too, where the kubelet uses something in front of it.
#[tokio::test]
async fn a_runtime_that_the_kubelet_does_not_use_is_not_kept() {
    let (_folder, nft) = nft::tests::script("cat >/dev/null");
    for (endpoint, kept) in
        [(Some("/run/odd.sock"), true), (Some("/run/cri-dockerd.sock"), false), (None, true)]
    {
        let mut attachment = attached(&nft, FailurePolicy::Open, Instant::now());
        let (name, version) = ("containerd".to_owned(), "1.6.20".to_owned());
        attachment.runtime = Some(Runtime { name, version, server: None });
        attachment.socket = Some("/nonexistent/run/odd.sock".into());
        // Another kubelet runs than the one under which it was found, or none does. Nobody listens.
        let process = endpoint.map(|_| (2, 2));
        let endpoint = endpoint.map(|endpoint| format!("unix://{endpoint}"));
        let kubelet = Kubelet { process, endpoint, ..Kubelet::default() };
        let asked = attachment.ask(&kubelet).await;
        assert_eq!((asked.is_ok(), attachment.runtime.is_some()), (kept, kept));
    }
}

#[tokio::test]
async fn connections_are_taken_until_the_kernel_sends_none() {
    for (policy, expected) in [
        (FailurePolicy::Open, rules::remove(Family::ALL[0])),
        (FailurePolicy::Closed, rules::forget(Family::ALL[0])),
    ] {
        let (folder, nft) =
            nft::tests::script(r#"cat >>"$0.said"; until [ -e "$0.go" ]; do sleep 0.01; done"#);
        let said = || std::fs::read_to_string(folder.path().join("nft.said")).unwrap_or_default();
        let (unattached, stop_taking) = Shutdown::triggered();
        let mut attachment = attached(&nft, policy, Instant::now());
        let mut wishes = wish(policy);
        let letting_go =
            tokio::spawn(async move { attachment.let_go(&mut wishes, &unattached).await });
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
        let mut attachment = attached(&nft, policy, renewed);
        let mut wishes = wish(policy);
        let letting_go =
            tokio::spawn(async move { attachment.let_go(&mut wishes, &unattached).await });
        stop_taking.requested().await;
        assert!(renewed.elapsed() >= LIFETIME, "{policy:?}: {:?}", renewed.elapsed());
        letting_go.abort();
    }
}
