//! Runtimes and streaming servers of other kinds than the usual one: on IPv6, over https, in the kubelet itself, and Docker's.

use serde_json::Value;

use crate::{
    agent::{self, NAMESPACE, START, carried, pod, report},
    bed::{Bed, Client},
    managed::{checked, ends, runs_with_flag},
    operator::{self, POLICY, SECONDS, becomes, node_status},
    remediation::containers,
    streams::upload_takes,
};

/// The node that gets other runtimes.
pub const NODE: &str = "old2";
/// What its streams are limited to.
pub const LIMITED: &str = "{maxConnectionBytesPerSec: 1Mi}";

/// Waits until the agent has found that runtime, and its streams are so; returns its report.
#[track_caller]
pub fn found(bed: &Bed, runtime: &str, streams: &str) -> Value {
    bed.wait_for(&format!("{runtime} on {NODE}, its streams {streams}"), START, || {
        report(bed, NODE)
            .filter(|told| told["streams"] == streams && told["runtime"]["name"] == runtime)
    })
}

/// What both kubectls get back from an exec into the node's pod.
#[track_caller]
pub fn echo(bed: &Bed) {
    for client in Client::BOTH {
        let echo = ["exec", "-n", NAMESPACE, NODE, "--", "echo", "through"];
        // A kubelet that has just been started serves its dockershim before its own port.
        bed.wait_for(&format!("an exec by {client:?}"), SECONDS, || {
            let said = bed.kubectl_of(client, &echo);
            (said.success() && said.text() == "through").then_some(())
        });
    }
}

/// The agent relays that runtime's streams, and both kubectls' execs pass through it.
#[track_caller]
pub fn relays(bed: &Bed, runtime: &str) -> Value {
    let told = found(bed, runtime, "Relayed");
    let before = carried(bed, NODE, "exec");
    echo(bed);
    assert!(carried(bed, NODE, "exec") >= before + 2.0, "{told}");
    told
}

/// What is sent to the node's pod comes as slowly as [`LIMITED`] has it.
#[track_caller]
pub fn limited(bed: &Bed, client: Client) {
    let took = upload_takes(bed, client, NODE, 10);
    // How exact it is, another test tells that has the machine to itself.
    assert!((9.0..20.0).contains(&took), "10 MiB at 1 MiB/s took {took:.2} s");
}

/// The node's canary answers an exec and a port-forward, which pass through the agent where that relays.
#[track_caller]
pub fn canary_answers(bed: &Bed) {
    const KINDS: [&str; 2] = ["exec", "portforward"];
    let relays = report(bed, NODE).expect("a report")["streams"] == "Relayed";
    let before = KINDS.map(|kind| carried(bed, NODE, kind));
    checked(bed, &[NODE], 0, &[]);
    for (kind, before) in KINDS.into_iter().zip(before) {
        assert_eq!(carried(bed, NODE, kind) > before, relays, "{kind}");
    }
}

/// What is concluded of the node: verdict, reason, and by whose word.
#[track_caller]
pub fn judged(bed: &Bed, verdict: &str, reason: &str, source: &str) {
    bed.wait_for(&format!("{NODE} to be {verdict} ({reason}) by {source}"), SECONDS, || {
        let fields = ["verdict", "reason", "decidedBy"];
        let told = fields.map(|field| node_status(bed, NODE, field).unwrap_or_default());
        (told == [verdict, reason, source]).then_some(())
    });
}

/// The policy of these tests for the node alone, and what it wants of the kubelet.
#[track_caller]
fn policy(bed: &Bed, remediation: &str) {
    bed.apply(&format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {POLICY}}}\n\
         spec: {{nodeSelector: {{kubernetes.io/hostname: {NODE}}}, proxy: {LIMITED}, \
         nodes: {{remediation: {remediation}}}}}\n"
    ));
}

/// A kubelet that uses Docker redirects to itself, by a path on its own port. Without the flag its dockershim streams from
/// a port of its own. containerd serves the CRI beside it, and is not the kubelet's runtime.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn dockershim_is_found_and_relayed_once_its_kubelet_has_lost_the_flag() {
    let bed = Bed::shared();
    bed.replace(NODE, &["kubelet=1.19.16", "runtime=docker", "redirect=true"]);
    operator::fresh_with(&bed, &["--set", "remediators.kubelet.enabled=true"]);
    bed.namespace(NAMESPACE);
    policy(&bed, "Disabled");
    pod(&bed, NODE);
    let told = found(&bed, "docker", "Direct");
    assert_eq!((&told["flag"], &told["reason"]), (&"On".into(), &"StreamsThroughKubelet".into()));
    assert!(told["runtime"]["streamingAddress"].is_null(), "{told}");
    judged(&bed, "Blocks", "Redirects", "Agent");
    let message = becomes(&bed, "ProxyReady", "False", "NodesNotRelayed");
    assert!(message.contains("through the kubelet's own port"), "{message}");
    echo(&bed);
    canary_answers(&bed);

    let before = containers(&bed, NODE);
    policy(&bed, "KubeletFlag");
    ends(&bed, "NodesRemediated", "True", "NoFlags");
    becomes(&bed, "CanaryPassed", "True", "Answered");
    runs_with_flag(&bed, NODE, false);
    assert_eq!(relays(&bed, "docker")["flag"], "Absent");
    judged(&bed, "Safe", "FlagOff", "Agent");
    becomes(&bed, "ProxyReady", "True", "Relaying");
    becomes(&bed, "RuntimeExposed", "False", "NoneExposed");
    limited(&bed, Client::Current);
    canary_answers(&bed);
    assert_eq!(containers(&bed, NODE), before);
}

/// The last kubelet with a dockershim, and the first that speaks to a containerd of today. Only `make test-all` has both.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn kubelets_of_1_23_are_relayed_on_docker_and_on_a_containerd_of_today() {
    let bed = Bed::shared();
    let kubelets = bed.versions_of("kubelet");
    let containerds = bed.versions_of("containerd");
    let Some(kubelet) = kubelets.iter().find(|version| version.starts_with("1.23.")) else {
        return eprintln!("no kubelet 1.23 is built: tests/cluster/cluster build all");
    };
    let kubelet = format!("kubelet={kubelet}");
    // Before the apiserver's upgrade: helm stores what it has installed, which an older one may not know.
    agent::fresh(&bed, LIMITED);
    bed.apiserver("1.24.17", &[]);
    for (runtime, name) in [("docker", "docker")]
        .into_iter()
        .chain(containerds.iter().map(|version| (version.as_str(), "containerd")))
    {
        bed.replace(NODE, &[&kubelet, &format!("runtime={runtime}"), "redirect=false"]);
        pod(&bed, NODE);
        let told = relays(&bed, name);
        eprintln!("{kubelet} {runtime}: {told}");
        assert_eq!(told["flag"], "Absent", "{told}");
        judged(&bed, "Safe", "FlagRemoved", "KubeletVersion");
        limited(&bed, Client::Current);
        canary_answers(&bed);
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn streaming_servers_on_ipv6_and_over_https_are_followed() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    for (declaration, begins, tls, kind) in [
        (["stream=::1", "tls=false"], "[::1]:", false, "exec"),
        (["stream=127.0.0.1", "tls=true"], "127.0.0.1:", true, "tls"),
    ] {
        bed.replace(NODE, &declaration);
        pod(&bed, NODE);
        // What the agent of the earlier host has said may stand for a moment.
        bed.wait_for("the agent to find the new streaming server", START, || {
            let report = report(&bed, NODE).filter(|report| report["streams"] == "Relayed")?;
            let runtime = &report["runtime"];
            let found = runtime["streamingAddress"].as_str()?.starts_with(begins);
            (found && runtime["tls"].as_bool() == Some(tls)).then_some(())
        });
        for client in Client::BOTH {
            let before = carried(&bed, NODE, kind);
            let said =
                bed.kubectl_of(client, &["exec", "-n", NAMESPACE, NODE, "--", "echo", "through"]);
            assert_eq!(said.succeeded().text(), "through");
            // A kubectl that has asked for a WebSocket first and been refused has asked twice.
            assert!(carried(&bed, NODE, kind) > before, "{client:?} {declaration:?}");
        }
    }
}
