//! The redirect flag taken off kubelets, wherever it comes from, and what goes wrong on the way.

use serde_json::{Value, json};

use crate::{
    bed::Bed,
    managed::{change, checked, ends, fresh, fresh_alone, planned, policy, runs_with_flag},
    operator::{POLICY, SECONDS, condition},
};

/// Where the kubelets of these hosts have their flags from.
const KUBELET_ARGS: &str = "/etc/default/kubelet";
/// What kubeadm writes when a node joins.
const KUBEADM_ARGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// The drop-in of Kubernetes' packages.
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
/// A drop-in of the node's administrator.
const OWN_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/20-streams.conf";

/// The containers of a node's pods, and how often they were started, once all of them run. Pods that an earlier test has
/// left to their end, or that have ended, are not among them.
#[track_caller]
pub fn containers(bed: &Bed, node: &str) -> Vec<(String, u64)> {
    let pods = format!("/api/v1/pods?fieldSelector=spec.nodeName={node}");
    bed.wait_for(&format!("the containers of {node} to run"), 2 * SECONDS, || {
        let pods = bed.get(&pods)?;
        let stay = |pod: &&Value| {
            let ended = ["Succeeded", "Failed"].map(Value::from).contains(&pod["status"]["phase"]);
            pod["metadata"]["deletionTimestamp"].is_null() && !ended
        };
        let mut all = Vec::new();
        for pod in pods["items"].as_array()?.iter().filter(stay) {
            for status in pod["status"]["containerStatuses"].as_array()? {
                status["state"]["running"].as_object()?;
                let id = status["containerID"].as_str()?.to_owned();
                all.push((id, status["restartCount"].as_u64()?));
            }
        }
        all.sort();
        (!all.is_empty()).then_some(all)
    })
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn wherever_systemd_has_the_flag_from_it_goes_and_pods_run_on() {
    let bed = Bed::shared();
    fresh_alone(&bed);
    let on = |node: &str, script: &str| bed.host_exec(node, &["sh", "-euc", script]).succeeded();
    for node in ["old1", "new1"] {
        on(node, &format!("sed -i 's/ --redirect-container-streaming=true//' {KUBELET_ARGS}"));
    }
    let files = [("old1", KUBEADM_ARGS), ("new1", DROP_IN), ("old2", KUBELET_ARGS)];
    let read = |(node, file): (&str, &str)| on(node, &format!("cat {file}")).stdout;
    let originals = files.map(read);
    for (node, edit) in [
        ("old1", format!("sed -i 's/\"$/ --redirect-container-streaming=true\"/' {KUBEADM_ARGS}")),
        // In the words of an Environment=, and in a command line of its own that goes on below.
        (
            "new1",
            format!("sed -i '/CONFIG_ARGS=--/s/\"$/ --redirect-container-streaming\"/' {DROP_IN}"),
        ),
        (
            "old2",
            format!(
                "{{ echo [Service]; echo ExecStart=; grep ExecStart=/ {DROP_IN} | sed 's/$/ \\\\/'; \
                 echo '  --redirect-container-streaming=true \\'; echo '  --v=2'; }} >{OWN_DROP_IN}"
            ),
        ),
    ] {
        on(node, &format!("{edit}; systemctl daemon-reload; systemctl restart kubelet"));
        runs_with_flag(&bed, node, true);
    }
    let before = ["old1", "new1", "old2"].map(|node| containers(&bed, node));
    policy(
        &bed,
        "streamingProxyRedirects: Enabled, nodes: {remediation: KubeletFlag, maxUnavailable: 3}",
    );
    ends(&bed, "NodesRemediated", "True", "NoFlags");
    for node in ["old1", "new1", "old2"] {
        runs_with_flag(&bed, node, false);
    }
    assert_eq!(files.map(read), originals);
    let own = read(("old2", OWN_DROP_IN));
    assert!(own.ends_with("$KUBELET_EXTRA_ARGS \\\n  --v=2\n"), "{own}");
    for (node, before) in ["old1", "new1", "old2"].into_iter().zip(&before) {
        let after = containers(&bed, node);
        // The node's agent has come since.
        assert!(before.iter().all(|container| after.contains(container)), "{before:?} {after:?}");
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_kubelet_that_does_not_come_back_gets_its_flag_back_and_no_other_is_touched() {
    let bed = Bed::shared();
    fresh(&bed);
    let args = |node: &str| bed.host_exec(node, &["cat", KUBELET_ARGS]).succeeded().stdout;
    let originals = ["old1", "new1"].map(args);
    // A node of which no agent tells yet would let the others go first.
    policy(&bed, "streamingProxyRedirects: Disabled");
    ends(&bed, "ProxyReady", "True", "EvidenceOnly");
    // This kubelet comes up with its flag and not without.
    let needs = "ExecStartPre=/bin/grep -q redirect-containe[r]-streaming";
    let script = format!(
        "printf '[Service]\\n{needs} {KUBELET_ARGS}\\n' >{OWN_DROP_IN}; systemctl daemon-reload"
    );
    bed.host_exec("old1", &["sh", "-euc", &script]).succeeded();
    policy(&bed, "streamingProxyRedirects: Disabled, nodes: {remediation: KubeletFlag}");
    let message = ends(&bed, "NodesRemediated", "False", "RemediationFailed");
    assert!(message.contains("old1 could not be changed"), "{message}");
    assert!(message.contains("The original /etc/default/kubelet is back"), "{message}");
    assert_eq!(["old1", "new1"].map(args), originals, "byte for byte");
    runs_with_flag(&bed, "old1", true);
    assert_eq!(change(&bed, "new1"), (None, None), "one failure ends it");
    ends(&bed, "Degraded", "True", "RemediationFailed");
    // Once its agent has said that the flag is back.
    ends(&bed, "Progressing", "False", "Refused");
}

/// The certificate that containerd makes for itself is good enough for an apiserver that follows a redirect, and for no
/// kubelet that proxies.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_runtime_that_no_kubelet_trusts_keeps_its_redirects_until_it_is_mended() {
    let bed = Bed::shared();
    bed.replace("old1", &["kubelet=1.18.19", "redirect=true", "tls=self"]);
    bed.replace("old2", &["kubelet=1.18.19", "redirect=false", "tls=self"]);
    fresh_alone(&bed);
    // Ground truth first: with the redirect it works, and without it does not.
    checked(&bed, &["old1"], 0, &[]);
    checked(&bed, &["old2"], 2, &["x509", "enable_tls_streaming"]);

    policy(&bed, "streamingProxyRedirects: Disabled, nodes: {remediation: KubeletFlag}");
    // What is not told yet might be as well.
    ends(&bed, "ProxyReady", "True", "EvidenceOnly");
    runs_with_flag(&bed, "new1", false);
    let message = ends(&bed, "NodesRemediated", "False", "RuntimeNotTrusted");
    assert!(message.contains("old1 ") && !message.contains("old2"), "{message}");
    runs_with_flag(&bed, "old1", true);
    planned(&bed, "1.22", |steps| {
        let first = steps.first().map(|step| json!([step["action"], step["nodes"]]));
        first == Some(json!(["TrustRuntime", ["old1"]]))
    });

    let plain = "sed -i 's/enable_tls_streaming = true/enable_tls_streaming = false/' \
                 /etc/containerd/config.toml; systemctl restart containerd";
    bed.host_exec("old1", &["sh", "-euc", plain]).succeeded();
    ends(&bed, "NodesRemediated", "True", "NoFlags");
    runs_with_flag(&bed, "old1", false);
    checked(&bed, &["old1"], 0, &[]);
}

/// The streams of the nodes are an older policy's concern, their flags that of the oldest that asks for it. Policies of one
/// second are as old as their names say.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn each_policy_gets_what_it_is_the_oldest_to_ask_for() {
    let bed = Bed::shared();
    fresh_alone(&bed);
    let other = |name: &str, spec: &str| {
        bed.apply(&format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        ));
    };
    let owned = |name: &str, kind: &str, owner: &str| {
        bed.wait_for(&format!("{kind} of {name} to name {owner}"), SECONDS, || {
            let now = condition(&bed, name, kind)?;
            (now.reason == "OlderPolicyFollowed" && now.message.contains(owner)).then_some(())
        });
    };
    other("a-streams", "{proxy: {mode: Disabled}}");
    policy(&bed, "streamingProxyRedirects: Enabled, nodes: {remediation: KubeletFlag}");
    other("late", "{nodes: {remediation: KubeletFlag}}");
    owned(POLICY, "ProxyReady", "a-streams");
    owned("late", "NodesRemediated", POLICY);
    ends(&bed, "NodesRemediated", "True", "NoFlags");
    for node in ["old1", "new1"] {
        runs_with_flag(&bed, node, false);
    }
    owned("late", "NodesRemediated", POLICY);
}
