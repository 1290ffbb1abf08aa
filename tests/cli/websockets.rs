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
