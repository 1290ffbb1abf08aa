//! What the agents see of their kubelets, without anybody's word, and how soon the verdict follows.

use std::time::{Duration, Instant};

use crate::{
    agent::{self, NAMESPACE, pod, report, rolled_out},
    bed::{Bed, Client},
    operator::{SECONDS, becomes, node_status},
};

const ON: &str = "--redirect-container-streaming=true";
const OFF: &str = "--redirect-container-streaming=false";
/// From the kubelet's restart to the status of its node.
const FOLLOWS: Duration = Duration::from_secs(5);

fn sees(bed: &Bed, node: &str) -> (String, String) {
    let field = |name| node_status(bed, node, name).unwrap_or_default();
    (field("redirects"), field("decidedBy"))
}

#[track_caller]
fn becomes_seen(bed: &Bed, node: &str, redirects: &str, source: &str) {
    let mut last = None;
    bed.wait_for(&format!("{node} to be {redirects} by {source}"), SECONDS, || {
        let now = sees(bed, node);
        if last.as_ref() != Some(&now) {
            eprintln!("{node}: {now:?}");
            last = Some(now.clone());
        }
        (now == (redirects.to_owned(), source.to_owned())).then_some(())
    });
}

/// Changes the flag where the kubelet's unit takes it from, and restarts it.
fn restart_kubelet(bed: &Bed, node: &str, from: &str, to: &str) {
    let edit = format!("s/{from}/{to}/");
    bed.host_exec(node, &["sed", "-i", &edit, "/etc/default/kubelet"]).succeeded();
    bed.host_exec(node, &["systemctl", "restart", "kubelet"]).succeeded();
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn agents_tell_what_no_annotation_says_and_the_verdict_follows() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    becomes_seen(&bed, "old1", "On", "Agent");
    becomes_seen(&bed, "old2", "Off", "Agent");
    becomes_seen(&bed, "new1", "Ignored", "KubeletVersion");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    // An agent that has just been started is believed once its first probe says that it is ready.
    rolled_out(&bed);

    restart_kubelet(&bed, "old1", ON, OFF);
    let restarted = Instant::now();
    becomes_seen(&bed, "old1", "Off", "Agent");
    let took = restarted.elapsed();
    eprintln!("the status followed {:.1} s after the restart", took.as_secs_f64());
    assert!(took <= FOLLOWS, "{took:?}");
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");

    restart_kubelet(&bed, "old1", OFF, ON);
    becomes_seen(&bed, "old1", "On", "Agent");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_followed_redirect_is_proof() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, "old1");
    bed.kubectl_of(Client::Old, &["exec", "-n", NAMESPACE, "old1", "--", "true"]).succeeded();
    let peer = bed.wait_for("the followed redirect in the report", SECONDS, || {
        report(&bed, "old1")?["followedRedirect"]["peer"].as_str().map(str::to_owned)
    });
    let control_plane = bed.get("/api/v1/nodes/cp1").expect("cp1");
    assert_eq!(
        peer,
        control_plane["status"]["addresses"][0]["address"].as_str().expect("an address")
    );
    pod(&bed, "old2");
    bed.kubectl(&["exec", "-n", NAMESPACE, "old2", "--", "true"]).succeeded();
    assert!(report(&bed, "old2").expect("a report")["followedRedirect"].is_null());
}
