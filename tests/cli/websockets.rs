//! WebSockets to the kubelet, as `sluice plan` judges them from files.

use super::{SAFE, agent, apiserver, condition, items, plan, rights::BUILT_IN};

const CONTAINERD: &str = "containerd://2.1.0";
const DOCKER: &str = "docker://28.0.0";

/// What an agent says of a kubelet that is set to no gate, and of a runtime that answers without a scheme.
const NO_GATES: &str = ", streamingGates: {}";
const NO_SCHEME: &str = ", streamingGates: {}, streamingUrl: SchemeLess";

/// A cluster of one version with one node, and what the node's agent says of its streams. Its rights let everybody be.
fn cluster(version: &str, gates: &str, runtime: &str, says: &str) -> String {
    let node = format!(
        "apiVersion: v1
kind: Node
metadata: {{name: worker-1}}
status:
  nodeInfo: {{kubeletVersion: {version}, containerRuntimeVersion: '{runtime}'}}
---
apiVersion: sluice.dev/v1alpha1
kind: StreamingNode
metadata: {{name: worker-1}}
spec: {{}}
status: {{agent: {{flag: Absent, since: '2026-01-02T03:04:05Z'{says}}}}}
"
    );
    [&node, &apiserver("cp", version, gates), &agent("worker-1"), BUILT_IN].join("---\n")
}

#[test]
fn an_upgrade_is_judged_before_it_is_made() {
    const SAFELY: &str = "Safe: NothingBreaks.";
    for (version, runtime, says, target, code, verdict) in [
        ("v1.34.4", CONTAINERD, NO_GATES, "1.35", 0, SAFELY),
        ("v1.35.4", CONTAINERD, NO_GATES, "1.36", 0, SAFELY),
        ("v1.35.4", CONTAINERD, "", "1.36", 2, "Refused: KubeletGatesUnknown"),
        ("v1.35.4", DOCKER, NO_GATES, "1.36", 2, "Refused: RuntimeUrlUnknown"),
        ("v1.34.4", DOCKER, NO_SCHEME, "1.35", 0, SAFELY),
        ("v1.34.4", DOCKER, NO_SCHEME, "1.37", 2, "Refused: RuntimeUrlSchemeless"),
    ] {
        let input = cluster(version, "", runtime, says);
        let ran = plan(&input, &["--target", target]);
        assert!(ran.stdout.contains(&format!("WebSockets: {verdict}")), "{}", ran.stdout);
        assert_eq!(ran.code, Some(code), "{version} {runtime} {says} to {target}: {}", ran.stdout);
        if code == 2 {
            let policy = &items(&input, &["--target", target])[0];
            assert_eq!(condition(policy, "UpgradeSafe")["reason"], "WebSocketsUnsafe");
            let ahead = policy["status"]["upgrades"].as_array().unwrap().last().unwrap();
            assert_eq!((&ahead["version"], &ahead["safe"]), (&target.into(), &false.into()));
        }
        // Without a target the condition is about the next minor, and refuses nothing.
        assert_eq!(plan(&input, &[]).code, Some(0), "{version} {runtime} {says}");
    }
}

#[test]
fn what_fails_now_is_refused_whatever_the_target() {
    let declares = "status:\n  declaredFeatures: [ExtendWebSocketsToKubelet]\n  nodeInfo";
    let input =
        cluster("v1.36.3", "", DOCKER, NO_SCHEME).replacen("status:\n  nodeInfo", declares, 1);
    let ran = plan(&input, &[]);
    assert!(ran.stdout.contains("WebSockets: Refused: WebSocketsFail"), "{}", ran.stdout);
    assert_eq!(ran.code, Some(2));
    let items = items(&input, &[]);
    assert_eq!(condition(&items[0], "Degraded")["reason"], "WebSocketsFail");
    let cells = serde_json::json!({"today": "Broken", "version": "1.37", "then": "Broken"});
    assert_eq!(items[1]["status"]["webSockets"], cells);
}

#[test]
fn an_admin_says_what_no_agent_does() {
    let said = "metadata: {name: worker-1, annotations: {sluice.dev/streaming-gates: '', \
                sluice.dev/streaming-url: Absolute}}";
    let silent = cluster("v1.35.4", "", DOCKER, "");
    let told = silent.replacen("metadata: {name: worker-1}", said, 1);
    for (input, code) in [(&silent, 2), (&told, 0)] {
        let ran = plan(input, &["--target", "1.36"]);
        assert_eq!(ran.code, Some(code), "{}", ran.stdout);
    }
}

#[test]
fn the_way_to_websockets_is_said_in_order() {
    let input = cluster("v1.35.4", "A=true,NodeDeclaredFeatures=false", DOCKER, NO_SCHEME);
    let ran = plan(&input, &["--target", "1.36"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    let start = ran.stdout.find("On the way to 1.36, in").unwrap();
    insta::assert_snapshot!("websockets", ran.stdout[start..]);
    let items = items(&input, &["--target", "1.36"]);
    let steps = items.last().unwrap()["steps"].as_array().unwrap();
    let actions: Vec<_> = steps.iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["UpgradeRuntime", "SetKubeletGate", "RemoveGate", "Upgrade"]);
    assert_eq!(
        steps[1]["changes"],
        serde_json::json!([{"becomes": "featureGates: {ExtendWebSocketsToKubelet: false}"}])
    );
}

/// A cluster before the migration hears nothing of it.
#[test]
fn old_clusters_hear_nothing_of_websockets() {
    let input = format!("{SAFE}---\n{}", apiserver("cp", "v1.21.0", ""));
    for more in [&[][..], &["--target", "1.24"], &["--target", "1.34"]] {
        let ran = plan(&input, &[more, &["-o", "json"]].concat());
        assert!(!ran.stdout.contains("WebSocket"), "{more:?}");
    }
}

/// The same cluster, with these annotations on its node, which declares this.
fn annotated(version: &str, runtime: &str, annotations: &str, declares: &str) -> String {
    let input = cluster(version, "", runtime, "");
    let node = format!("metadata: {{name: worker-1, annotations: {{{annotations}}}}}");
    let status = format!("status:\n  declaredFeatures: [{declares}]\n  nodeInfo");
    input.replacen("metadata: {name: worker-1}", &node, 1).replacen(
        "status:\n  nodeInfo",
        &status,
        1,
    )
}

const DECLARES: &str = "ExtendWebSocketsToKubelet";

#[test]
fn an_annotation_counts_only_where_a_kubelet_would_take_it_and_nothing_contradicts_it() {
    const UNKNOWN: (i32, &str) = (2, "Refused: KubeletGatesUnknown");
    const SAFELY: (i32, &str) = (0, "Safe: NothingBreaks");
    const K3S_OFF: &str = "k3s.io/node-args: '[\"agent\", \"--kubelet-arg\", \
                           \"feature-gates=PortForwardWebsockets=false\"]'";
    let gates = |said: &str| format!("sluice.dev/streaming-gates: '{said}'");
    for (annotations, declares, (code, verdict)) in [
        (gates(""), DECLARES, SAFELY),
        (gates(","), DECLARES, UNKNOWN),
        (gates("PortForwardWebsocket=false"), DECLARES, UNKNOWN),
        (gates("portforwardwebsockets=false"), DECLARES, UNKNOWN),
        (gates("PortForwardWebsockets=false"), DECLARES, (2, "Refused: KubeletRefusesGate")),
        // The Node is silent, though it would be heard.
        (gates(""), "Other", UNKNOWN),
        // k3s was started with it, whatever is said.
        (format!("{}, {K3S_OFF}", gates("")), DECLARES, UNKNOWN),
        (K3S_OFF.to_owned(), DECLARES, (2, "Refused: KubeletRefusesGate")),
    ] {
        let ran =
            plan(&annotated("v1.37.2", CONTAINERD, &annotations, declares), &["--target", "1.38"]);
        assert!(
            ran.stdout.contains(&format!("WebSockets: {verdict}")),
            "{annotations}: {}",
            ran.stdout
        );
        assert_eq!(ran.code, Some(code), "{annotations}");
    }
}

#[test]
fn a_url_without_a_scheme_counts_as_long_as_who_said_so_may_be_right() {
    const URL: &str = "sluice.dev/streaming-gates: '', sluice.dev/streaming-url: ";
    const SCHEMELESS: &str = "Refused: RuntimeUrlSchemeless";
    const SAFELY: &str = "Safe: NothingBreaks";
    let ready = "status: 'True'";
    for (annotation, boot, says, agent, verdict, source) in [
        // A ready agent looks now.
        ("SchemeLess", "a", "Absolute", ready, SAFELY, ""),
        ("Absolute", "a", "SchemeLess", ready, SCHEMELESS, "what the agent of worker-1 saw"),
        (
            "Absolute",
            "a",
            "SchemeLess",
            "status: 'False'",
            SCHEMELESS,
            "what the agent of worker-1",
        ),
        (
            "SchemeLess",
            "a",
            "Absolute",
            "status: 'False'",
            SCHEMELESS,
            "sluice.dev/streaming-url of",
        ),
        // What was said of another start says nothing.
        ("Absolute", "b", "SchemeLess", ready, SAFELY, ""),
        ("Absolute", "b", "SchemeLess", "status: 'False'", SAFELY, ""),
        ("SchemeLess", "b", "Absolute", ready, SCHEMELESS, "sluice.dev/streaming-url of worker-1"),
    ] {
        let said = format!(", bootID: {boot}, streamingGates: {{}}, streamingUrl: {says}");
        let input = annotated("v1.35.4", DOCKER, &format!("{URL}{annotation}"), "")
            .replacen(
                "since: '2026-01-02T03:04:05Z'",
                &format!("since: '2026-01-02T03:04:05Z'{said}"),
                1,
            )
            .replacen("nodeInfo: {", "nodeInfo: {bootID: a, ", 1)
            .replacen(ready, agent, 1);
        let ran = plan(&input, &["--target", "1.36"]);
        let case = format!("{annotation} {boot} {says} {agent}: {}", ran.stdout);
        assert!(ran.stdout.contains(&format!("WebSockets: {verdict}")), "{case}");
        assert!(ran.stdout.contains(source), "{case}");
    }
}

#[test]
fn what_is_said_of_apiservers_is_held_against_what_is_seen() {
    const OFF: &str = "ExtendWebSocketsToKubelet=false";
    let whole = annotated("v1.37.2", CONTAINERD, "sluice.dev/streaming-gates: ''", DECLARES);
    let hidden = whole.replacen(
        "[kube-apiserver, '--feature-gates=']",
        &format!("[sh, -c, 'exec kube-apiserver --feature-gates={OFF}']"),
        1,
    );
    let emulates = whole.replacen("'--feature-gates='", "'--emulated-version=1.36'", 1);
    let k3s = "k3s.io/node-args: '[\"server\", \"--kube-apiserver-arg\", \
               \"feature-gates=ExtendWebSocketsToKubelet=false\"]'";
    let k3s = format!("sluice.dev/streaming-gates: '', {k3s}");
    let k3s = annotated("v1.37.2+k3s1", CONTAINERD, &k3s, DECLARES);
    for (input, said, code, holds) in [
        (&whole, "", 0, "Safe: NothingBreaks"),
        (&whole, "Other=true", 0, "Safe: NothingBreaks"),
        (&whole, OFF, 1, "contradicts the command line of cp about ExtendWebSocketsToKubelet"),
        (&hidden, "", 1, "contradicts the command line of cp about ExtendWebSocketsToKubelet"),
        (&hidden, OFF, 2, "Refused: ApiserverRefusesGate"),
        (&hidden, "extendwebsocketstokubelet=false", 1, "did you mean ExtendWebSocketsToKubelet?"),
        (&hidden, "ExtendWebSocketToKubelet=false", 1, "did you mean ExtendWebSocketsToKubelet?"),
        (&emulates, "", 2, "Refused: ApiserverUnknown"),
        (&k3s, "", 1, "contradicts the command line of worker-1 about ExtendWebSocketsToKubelet"),
    ] {
        let ran = plan(input, &["--target", "1.38", "--apiserver-feature-gates", said]);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains(holds), "{said}: {text}");
        assert_eq!(ran.code, Some(code), "{said}: {text}");
    }
}

/// What AllBeta=false turns off is not a line that could be taken out.
#[test]
fn what_is_taken_out_stands_there() {
    let gates = "AllBeta=false,ExtendWebSocketsToKubelet=true";
    let annotation = format!("sluice.dev/streaming-gates: '{gates}'");
    let input = annotated("v1.35.4", CONTAINERD, &annotation, "").replacen(
        "--feature-gates=",
        &format!("--feature-gates={gates}"),
        1,
    );
    let items = items(&input, &["--target", "1.36"]);
    let steps = items.last().unwrap()["steps"].as_array().unwrap();
    let of = |action: &str| {
        let step = steps.iter().find(|step| step["action"] == action).unwrap();
        step["changes"].clone()
    };
    let lines = serde_json::json!([
        {"argument": "ExtendWebSocketsToKubelet: true"},
        {"argument": "AllBeta: false"},
    ]);
    assert_eq!(of("RemoveKubeletGate"), lines);
    assert_eq!(
        of("RemoveGate"),
        serde_json::json!([{"argument": format!("--feature-gates={gates}")}])
    );
}

/// A release candidate that declares is no contradiction.
#[test]
fn a_kubelet_of_a_release_candidate_is_not_asked_to_restart() {
    let input = annotated("v1.36.0-rc.1", CONTAINERD, "sluice.dev/streaming-gates: ''", DECLARES);
    let input = input.replacen("kube-apiserver:v1.36.0-rc.1", "kube-apiserver:v1.36.3", 1);
    let ran = plan(&input, &["--target", "1.37"]);
    assert!(ran.stdout.contains("WebSockets: Safe: NothingBreaks"), "{}", ran.stdout);
}
