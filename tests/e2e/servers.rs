//! Streaming servers of other kinds than the usual one: on IPv6, over https, and in the kubelet itself.

use crate::{
    agent::{self, NAMESPACE, START, carried, pod, report},
    bed::{Bed, Client},
    operator::SECONDS,
};

const NODE: &str = "old2";

/// A kubelet that uses Docker redirects to itself, by a path on its own port. Without the flag its dockershim streams from
/// a port of its own. containerd serves the CRI beside it, and is not the kubelet's runtime.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn dockershim_is_found_and_relayed_once_its_kubelet_proxies() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{maxConnectionBytesPerSec: 4Mi}");
    bed.replace(NODE, &["kubelet=1.19.16", "runtime=docker", "redirect=true"]);
    pod(&bed, NODE);
    let becomes = |streams: &str| {
        bed.wait_for(&format!("the streams of {NODE} to be {streams}"), START, || {
            report(&bed, NODE).filter(|report| {
                report["streams"] == streams && report["runtime"]["name"] == "docker"
            })
        })
    };
    let echo = || {
        for client in Client::BOTH {
            let echo = ["exec", "-n", NAMESPACE, NODE, "--", "echo", "through"];
            // A kubelet that has just been started serves its dockershim before its own port.
            bed.wait_for(&format!("an exec by {client:?}"), SECONDS, || {
                let said = bed.kubectl_of(client, &echo);
                (said.success() && said.text() == "through").then_some(())
            });
        }
    };
    let told = becomes("Direct");
    assert_eq!((&told["flag"], &told["reason"]), (&"On".into(), &"StreamsThroughKubelet".into()));
    assert!(told["runtime"]["streamingAddress"].is_null(), "{told}");
    echo();

    let off =
        "sed -i s/streaming=true/streaming=false/ /etc/default/kubelet; systemctl restart kubelet";
    bed.host_exec(NODE, &["sh", "-euc", off]).succeeded();
    let told = becomes("Relayed");
    assert_eq!(told["flag"], "Off");
    let before = carried(&bed, NODE, "exec");
    echo();
    assert!(carried(&bed, NODE, "exec") >= before + 2.0);
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
