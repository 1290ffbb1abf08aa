//! The verdict on the real cluster: refused by name, permitted, taken back, foretold.

use crate::{
    api::{POLICIES, STREAMING_NODES},
    bed::{Bed, Client},
    operator::{
        self, COLLECTED, POLICY, SECONDS, annotate, apply_example, becomes, becomes_saying,
        condition, events, node_status,
    },
};

const REFUSED: &str = "invalid upgrade response: status code 302";

/// `kubectl exec` into a pod of our own on the node: whether it is answered, or refused for a redirect. What else kubectl
/// says passes, such as that a kubelet which was just restarted knows no pod yet.
fn exec(bed: &Bed, node: &str) -> Result<(), String> {
    let name = format!("exec-{node}");
    bed.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: "k8s.gcr.io/busybox:1", command: [sleep, "86400"]}}
"#
    ));
    bed.pod_ready("default", &name);
    let output = bed.wait_for(&format!("an answer from {node}"), SECONDS, || {
        let output = bed.kubectl_of(Client::Current, &["exec", &name, "--", "true"]);
        let answered = output.success() || output.stderr.contains(REFUSED);
        if !answered {
            eprintln!("{output}");
        }
        answered.then_some(output)
    });
    if output.success() { Ok(()) } else { Err(output.failed()) }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn the_floor_case_is_refused_by_name() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    annotate(&bed, "old1", true);
    apply_example(&bed);
    let message = becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    assert!(message.starts_with("old1 answers"), "{message}");
    assert!(message.ends_with("1 more node may redirect."), "{message}");

    // What a person sees.
    let table = bed.kubectl(&["get", "streamingpolicy"]).succeeded();
    let row: Vec<&str> = table.text().lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[..6],
        [POLICY, "Disabled", "Enabled", "False", "NodesRedirectWhileLagging", "4"]
    );
    assert_eq!(row[6], "2", "blocking");
    let expected = [
        ["cp1", "v1.20.15", "0", "Ignored", "KubeletVersion", "Proxied", "Final", "Safe"],
        ["new1", "v1.20.15", "0", "Ignored", "KubeletVersion", "Proxied", "Final", "Safe"],
        ["old1", "v1.18.19", "2", "On", "Annotation", "Followed", "Broken", "Blocks"],
        ["old2", "v1.18.19", "2", "Unknown", "Nothing", "Unknown", "Unknown", "Blocks"],
    ];
    let mut last = String::new();
    // Each node is written by itself, and a policy before them.
    bed.wait_for(&format!("the table of nodes to say {expected:?}"), SECONDS, || {
        let table = bed.kubectl(&["get", "streamingnodes"]).succeeded();
        if table.stdout != last {
            eprintln!("{}", table.stdout);
            last.clone_from(&table.stdout);
        }
        let rows = table.text().lines().skip(1);
        let rows: Vec<Vec<&str>> =
            rows.map(|line| line.split_whitespace().take(8).collect()).collect();
        (rows == expected).then_some(())
    });

    // The object is its Node's, and goes with it.
    let owners =
        bed.get(&format!("{STREAMING_NODES}/old1")).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners[0]["uid"], bed.get("/api/v1/nodes/old1").unwrap()["metadata"]["uid"]);

    annotate(&bed, "old2", false);
    bed.wait_for("old2 to be off", SECONDS, || {
        node_status(&bed, "old2", "redirects").filter(|r| r == "Off")
    });
    becomes_saying(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging", |message| {
        message.starts_with("old1 ") && !message.contains("old2") && !message.contains("more node")
    });
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn permitted_when_no_node_redirects_and_taken_back_when_one_may() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    annotate(&bed, "old1", true);
    annotate(&bed, "old2", false);
    apply_example(&bed);
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");

    bed.replace("old1", &["kubelet=1.20.15", "redirect=false"]);
    let wait = format!("streamingpolicy/{POLICY}");
    bed.kubectl(&["wait", "--for=condition=SafeToDisable", &wait, "--timeout=45s"]).succeeded();
    assert_eq!(
        condition(&bed, POLICY, "SafeToDisable").unwrap().brief(),
        ("True", "NoNodeRedirects")
    );
    // It holds: with the gate off, exec works everywhere.
    bed.apiserver("1.20.15", &["--feature-gates=StreamingProxyRedirects=false"]);
    becomes(&bed, "RedirectsDisabled", "True", "GateOff");
    for node in ["cp1", "new1", "old1", "old2"] {
        assert_eq!(exec(&bed, node), Ok(()), "exec to {node}");
    }
    bed.default_apiserver();
    becomes(&bed, "RedirectsDisabled", "False", "GateOn");

    // A node that nothing is known of joins.
    bed.add("late1", &["kubelet=1.18.19", "redirect=true"]);
    let message = becomes(&bed, "SafeToDisable", "False", "NodesUnknown");
    assert!(message.starts_with("late1 may"), "{message}");
    bed.wait_for("an event that says why", SECONDS, || {
        events(&bed, "StreamingPolicy", "NodesUnknown").into_iter().find(|m| m.contains("late1"))
    });
    bed.remove("late1");
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");
    bed.wait_for("the StreamingNode to go with its Node", COLLECTED, || {
        bed.get(&format!("{STREAMING_NODES}/late1")).is_none().then_some(())
    });
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn upgrades_are_foretold_and_come_true() {
    let bed = Bed::shared();
    operator::fresh(&bed);
    annotate(&bed, "old1", true);
    annotate(&bed, "old2", false);
    annotate(&bed, "new1", true);
    apply_example(&bed);
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    let target = |version: &str| {
        let patch = format!(r#"{{"spec":{{"targetVersion":"{version}"}}}}"#);
        bed.kubectl(&["patch", "streamingpolicy", POLICY, "--type=merge", "-p", &patch])
            .succeeded();
    };

    target("1.22");
    let message = becomes(&bed, "UpgradeSafe", "False", "GateOffByDefault");
    assert!(message.contains("old1") && !message.contains("old2"), "{message}");
    // The cliff: new1's flag, harmless today, stops a kubelet of 1.22.
    assert!(message.contains("The kubelet of new1 and old1 will not start at 1.22"), "{message}");
    target("1.24");
    let message = becomes(&bed, "UpgradeSafe", "False", "GateGone");
    assert!(message.contains("The kubelet of new1 and old1 will not start at 1.24"), "{message}");
    let policy = bed.get(&format!("{POLICIES}/{POLICY}")).unwrap();
    let upgrades = policy["status"]["upgrades"].as_array().unwrap();
    let seen: Vec<_> = upgrades
        .iter()
        .map(|u| {
            (
                u["version"].as_str(),
                u["gate"].as_str(),
                u["safe"].as_bool(),
                u["breakingNodes"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Some("1.21"), Some("Enabled"), Some(true), Some(0)),
            (Some("1.22"), Some("Disabled"), Some(false), Some(1)),
            (Some("1.23"), Some("Disabled"), Some(false), Some(1)),
            (Some("1.24"), Some("Removed"), Some(false), Some(1)),
        ]
    );
    // A target behind the apiserver is said, and loses nothing.
    target("1.19");
    becomes(&bed, "Degraded", "True", "TargetVersionBehind");
    becomes(&bed, "SafeToDisable", "False", "NodesRedirectWhileLagging");
    target("1.22");

    // The proof: that apiserver, nothing else changed.
    assert_eq!(exec(&bed, "old1"), Ok(()));
    bed.apiserver("1.22.17", &[]);
    let failure = exec(&bed, "old1").unwrap_err();
    assert!(failure.contains(REFUSED), "{failure}");
    assert_eq!(exec(&bed, "old2"), Ok(()));
    let message = becomes(&bed, "Degraded", "True", "StreamsFail");
    assert!(message.contains("old1"), "{message}");

    // And that kubelet, with the flag that the one before it ignored.
    let version = || {
        let node = bed.get("/api/v1/nodes/new1")?;
        Some(node["status"]["nodeInfo"]["kubeletVersion"].as_str()?.to_owned())
    };
    let on_new1 = |script: &str| bed.host_exec("new1", &["sh", "-euc", script]).succeeded();
    bed.kubelet("new1", "1.22.17");
    bed.wait_for("the kubelet to refuse its flag", SECONDS, || {
        // A refusal prints all flags after it: more lines than a journal is asked for without need.
        let refusal = "journalctl --unit kubelet --output cat --lines 1 --grep 'unknown flag' || :";
        on_new1(refusal).stdout.contains("--redirect-container-streaming").then_some(())
    });
    assert_eq!(version().as_deref(), Some("v1.20.15"), "it has never come up");
    on_new1(
        "sed -i 's/ --redirect-container-streaming=true//' /etc/default/kubelet; \
         systemctl restart kubelet",
    );
    bed.wait_for("the kubelet to come up without it", SECONDS, || {
        (version().as_deref() == Some("v1.22.17")).then_some(())
    });
    bed.default_apiserver();
    // Streams pass again. What is left to say is that a kubelet was upgraded before its apiserver.
    let message = becomes(&bed, "Degraded", "True", "KubeletNewer");
    assert!(message.contains("new1"), "{message}");
    assert_eq!(exec(&bed, "old1"), Ok(()));
}
