//! Runtimes and streaming servers of other kinds than the usual one: on IPv6, over https, in the kubelet itself, and Docker's.

use serde_json::Value;

use crate::{
    agent::{self, NAMESPACE, START, carried, pod, report},
    bed::{Bed, Client},
    operator::SECONDS,
};

/// The node that gets other runtimes.
pub const NODE: &str = "old2";

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

/// A kubelet that uses Docker redirects to itself, by a path on its own port. Without the flag its dockershim streams from
/// a port of its own. containerd serves the CRI beside it, and is not the kubelet's runtime.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn dockershim_is_found_and_relayed_once_its_kubelet_proxies() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{maxConnectionBytesPerSec: 4Mi}");
    bed.replace(NODE, &["kubelet=1.19.16", "runtime=docker", "redirect=true"]);
    pod(&bed, NODE);
    let told = found(&bed, "docker", "Direct");
    assert_eq!((&told["flag"], &told["reason"]), (&"On".into(), &"StreamsThroughKubelet".into()));
    assert!(told["runtime"]["streamingAddress"].is_null(), "{told}");
    echo(&bed);

    let off =
        "sed -i s/streaming=true/streaming=false/ /etc/default/kubelet; systemctl restart kubelet";
    bed.host_exec(NODE, &["sh", "-euc", off]).succeeded();
    assert_eq!(relays(&bed, "docker")["flag"], "Off");
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
    agent::fresh(&bed, "{mode: Streams}");
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
