//! The program as users and scripts run it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cases;
mod live;
mod many;
mod rights;
mod websockets;

use std::{fs, path::Path};

use assert_cmd::Command;
use serde_json::Value;

const CLUSTER: &str = "examples/cluster-1.21.yaml";

const SAFE: &str = "\
apiVersion: v1
kind: Node
metadata:
  name: worker-1
status:
  nodeInfo:
    kubeletVersion: v1.20.15
";

/// A policy with this spec.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: p, generation: 3}}\nspec: {spec}\n"
    )
}

/// An apiserver's mirror pod.
fn apiserver(node: &str, version: &str, gates: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver-{node}
  namespace: kube-system
  labels: {{component: kube-apiserver}}
  annotations: {{kubernetes.io/config.mirror: hash}}
  ownerReferences: [{{apiVersion: v1, kind: Node, name: {node}, uid: u}}]
spec:
  nodeName: {node}
  containers:
  - name: kube-apiserver
    image: registry.example/kube-apiserver:{version}
    command: [kube-apiserver, '--feature-gates={gates}']
"
    )
}

/// The pod of a node's agent, ready.
fn agent(node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: sluice-agent-{node}
  namespace: sluice-system
  labels: {{app.kubernetes.io/name: sluice, app.kubernetes.io/component: agent}}
  ownerReferences: [{{apiVersion: apps/v1, kind: DaemonSet, name: sluice-agent, uid: u, controller: true}}]
spec: {{nodeName: {node}, containers: []}}
status: {{conditions: [{{type: Ready, status: 'True'}}]}}
"
    )
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str], stdin: &str) -> Ran {
    // No cluster: whatever kubeconfig this machine has must not be asked.
    let output = Command::cargo_bin("sluice")
        .unwrap()
        .env("KUBECONFIG", "/nonexistent")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .args(args)
        .write_stdin(stdin)
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn plan(stdin: &str, more: &[&str]) -> Ran {
    run(&[&["plan", "-f", "-"], more].concat(), stdin)
}

fn items(stdin: &str, more: &[&str]) -> Vec<Value> {
    let ran = plan(stdin, &[more, &["-o", "json"]].concat());
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&"v1".into(), &"List".into()));
    list["items"].as_array().unwrap().clone()
}

fn condition<'a>(policy: &'a Value, kind: &str) -> &'a Value {
    let conditions = policy["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn the_example_cluster_is_refused() {
    let ran = run(&["plan", "-f", CLUSTER], "");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    insta::assert_snapshot!("cluster-1.21", ran.stdout);
}

#[test]
fn the_example_policies_are_taken() {
    for file in [
        "examples/policy.yaml",
        "examples/policy-streams.yaml",
        "examples/policy-managed.yaml",
        "examples/policy-full.yaml",
    ] {
        let ran = run(&["plan", "-f", CLUSTER, "-f", file], "");
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""), "{file}");
    }
}

#[test]
fn a_safe_cluster_ends_with_0() {
    let input = format!("{SAFE}---\n{}", apiserver("cp", "v1.21.0", ""));
    let ran = plan(&input, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!("safe", ran.stdout);
}

#[test]
fn a_target_that_breaks_ends_with_2() {
    let input =
        format!("{SAFE}---\n{}", apiserver("cp", "v1.21.0", "StreamingProxyRedirects=true"));
    assert_eq!(plan(&input, &[]).code, Some(0));
    let ran = plan(&input, &["--target", "1.24"]);
    assert_eq!(ran.code, Some(2));
    let verdict = "Upgrade to 1.24: Refused: ApiserverRefusesGate\n";
    assert!(ran.stdout.contains(verdict), "{}", ran.stdout);
}

#[test]
fn a_kubelet_that_will_not_come_back_from_its_upgrade_ends_with_2() {
    let apiserver = apiserver("cp", "v1.21.0", "A=true");
    let to_1_22 = |said: &str| {
        let node = SAFE.replace("v1.20.15", "v1.21.14").replace("  name: worker-1\n", said);
        plan(&format!("{node}---\n{apiserver}"), &["--target", "v1.22"])
    };
    let annotated = |value: &str| {
        format!(
            "  name: worker-1\n  annotations: {{sluice.dev/redirect-container-streaming: \"{value}\"}}\n"
        )
    };
    for (said, code, verdict) in [
        (annotated("true"), 2, "Upgrade to 1.22: Refused: KubeletRefusesFlag\n"),
        ("  name: worker-1\n".to_owned(), 2, "Upgrade to 1.22: Refused: KubeletFlagUnknown\n"),
        (annotated("false"), 0, "Upgrade to 1.22: Safe: NothingBreaks."),
    ] {
        let ran = to_1_22(&said);
        assert!(ran.stdout.contains(verdict), "{}", ran.stdout);
        assert_eq!(ran.code, Some(code), "{said}");
    }
}

#[test]
fn the_way_to_a_target_is_said_in_order() {
    let report = |name: &str, report: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: StreamingNode\nmetadata: {{name: {name}}}\nspec: {{}}\n\
             status: {{agent: {{since: '2026-01-02T03:04:05Z', {report}}}}}\n"
        )
    };
    let node =
        |name: &str, version: &str| SAFE.replace("worker-1", name).replace("v1.20.15", version);
    let input = [
        node("cp1", "v1.20.2"),
        node("old1", "v1.18.20"),
        node("new1", "v1.20.2"),
        report("cp1", "flag: Absent"),
        report("old1", "flag: 'On', nextStart: 'On'"),
        report("new1", "flag: 'On'"),
        agent("cp1"),
        agent("old1"),
        agent("new1"),
        apiserver("cp1", "v1.20.2", "A=true,StreamingProxyRedirects=true"),
        apiserver("cp2", "v1.20.2", "A=true,StreamingProxyRedirects=true"),
    ]
    .join("---\n");
    let ran = plan(&input, &["--target", "1.24"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    let start = ran.stdout.find("On the way to 1.24").unwrap();
    insta::assert_snapshot!("target", ran.stdout[start..]);

    let items = items(&input, &["--target", "1.24"]);
    let upgrade = items.last().unwrap();
    assert_eq!((&upgrade["kind"], &upgrade["target"]), (&"UpgradePlan".into(), &"1.24".into()));
    let steps = upgrade["steps"].as_array().unwrap();
    let actions: Vec<_> = steps.iter().map(|step| step["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["RemoveKubeletFlag", "RemoveGate", "RemoveKubeletFlag", "Upgrade"]);
    assert_eq!(steps[1]["nodes"], serde_json::json!(["cp1", "cp2"]));
    assert_eq!(steps[1]["files"][0], "/etc/kubernetes/manifests/kube-apiserver.yaml");
    assert_eq!(
        steps[1]["changes"],
        serde_json::json!([{
            "argument": "--feature-gates=A=true,StreamingProxyRedirects=true",
            "becomes": "--feature-gates=A=true",
        }])
    );
    assert_eq!(
        steps[0]["changes"],
        serde_json::json!([{"argument": "--redirect-container-streaming"}])
    );
    // Without a target there is no such object, and what was printed can be read again, in place of what was
    // known before.
    assert!(!plan(&input, &["-o", "json"]).stdout.contains("UpgradePlan"));
    let printed = plan(&input, &["--target", "1.24", "-o", "yaml"]).stdout;
    let rest = input.split("---\n").filter(|text| !text.contains("kind: StreamingNode"));
    let again: Vec<&str> = rest.chain([&*printed]).collect();
    let ran = plan(&again.join("---\n"), &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
}

#[test]
fn objects_are_a_list_that_scripts_can_read() {
    let input = format!("{SAFE}---\n{}", apiserver("cp", "v1.21.0", ""));
    let items = items(&input, &[]);
    let kinds: Vec<_> = items.iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["StreamingPolicy", "StreamingNode"]);
    for item in &items {
        assert_eq!(item["apiVersion"], "sluice.dev/v1alpha1");
        for part in ["metadata", "spec", "status"] {
            assert!(item[part].is_object(), "{part} of {item}");
        }
    }
    // Nobody asked for a policy: the default one wants the gate off.
    assert_eq!(items[0]["metadata"]["name"], "cluster");
    assert_eq!(items[0]["spec"]["streamingProxyRedirects"], "Disabled");
    assert_eq!(condition(&items[0], "SafeToDisable")["status"], "True");
    assert_eq!(items[1]["metadata"]["name"], "worker-1");
    assert_eq!(items[1]["status"]["verdict"], "Safe");
}

#[test]
fn yaml_is_read_as_it_was_meant() {
    let input = format!("{SAFE}---\n{}---\n{}", apiserver("cp", "v1.21.0", ""), policy("{}"));
    let yaml = plan(&input, &["-o", "yaml"]).stdout;
    let read: Value = serde_saphyr::from_str(&yaml).unwrap();
    let kinds: Vec<_> =
        read["items"].as_array().unwrap().iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["StreamingPolicy", "StreamingNode"]);
    // Off, a word of the statuses, is a boolean to YAML 1.1, which kubectl reads.
    let off = "metadata: {name: a}\nkind: Node\napiVersion: v1\nstatus: {nodeInfo: {kubeletVersion: v1.19.0}}";
    let off = off.replace(
        "{name: a}",
        "{name: a, annotations: {sluice.dev/redirect-container-streaming: 'false'}}",
    );
    let yaml = plan(&off, &["-o", "yaml"]).stdout;
    assert!(yaml.contains("redirects: \"Off\"") || yaml.contains("redirects: 'Off'"), "{yaml}");
    // What the program writes, it reads.
    let again = format!("{input}---\n{yaml}");
    assert_eq!(plan(&again, &[]).code, Some(0), "{}", plan(&again, &[]).stderr);
}

#[test]
fn the_policy_that_is_judged() {
    let two = format!(
        "{}---\n{}",
        policy("{streamingProxyRedirects: Enabled}")
            .replace("name: p,", "name: b, creationTimestamp: '2026-01-01T00:00:00Z',"),
        policy("{}").replace("name: p", "name: a"),
    );
    let input = format!("{SAFE}---\n{}---\n{two}", apiserver("cp", "v1.21.0", ""));
    let first = |more: &[&str]| items(&input, more)[0]["metadata"]["name"].clone();
    assert_eq!(first(&[]), "b", "the owner of the gate");
    assert_eq!(first(&["--policy", "a"]), "a");
    let target = &items(&input, &["--policy", "a", "--target", "1.23"])[0]["spec"]["targetVersion"];
    assert_eq!(target, "1.23");
    let ran = plan(&input, &["--policy", "c"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(1), "error: there is no StreamingPolicy \"c\"\n")
    );
}

#[test]
fn the_generation_is_observed() {
    let input = format!("{SAFE}---\n{}---\n{}", apiserver("cp", "v1.21.0", ""), policy("{}"));
    assert_eq!(condition(&items(&input, &[])[0], "SafeToDisable")["observedGeneration"], 3);
}

#[test]
fn apiservers_that_differ_are_refused() {
    let off = apiserver("cp-1", "v1.21.0", "StreamingProxyRedirects=false");
    let input = format!("{SAFE}---\n{off}---\n{}", apiserver("cp-2", "v1.20.0", ""));
    let ran = plan(&input, &[]);
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!("ha", ran.stdout);
}

#[test]
fn an_apiserver_that_only_answers_is_unknown() {
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: kubernetes, namespace: default}\nsubsets: [{addresses: [{ip: 10.0.0.1}]}]\n";
    let input = format!("{SAFE}---\n{}---\n{endpoints}", apiserver("cp", "v1.21.0", ""));
    let seen = &items(&input, &[])[0];
    assert_eq!(condition(seen, "SafeToDisable")["reason"], "ApiserversUnknown");
    assert_eq!(seen["status"]["apiservers"]["count"], 2);
}

#[test]
fn an_unseen_control_plane_is_described_by_options() {
    for (more, code, reason) in [
        (&[][..], 2, "ApiserversUnknown"),
        (&["--apiserver-version", "1.21"], 0, "GateDoesNotMatter"),
        (&["--apiserver-version", "1.24"], 0, "GateRemoved"),
        (&["--apiserver-version", "1.21", "--apiserver-feature-gates", ""], 0, "NoNodeRedirects"),
    ] {
        assert_eq!(plan(SAFE, more).code, Some(code), "{more:?}");
        assert_eq!(condition(&items(SAFE, more)[0], "SafeToDisable")["reason"], reason, "{more:?}");
    }
    // Who does not say it is told how.
    for more in [&[][..], &["--target", "1.24"]] {
        let told = plan(SAFE, more).stdout;
        let advice =
            "tell that to sluice plan by --apiserver-version and --apiserver-feature-gates";
        assert!(told.contains(advice), "{told}");
    }
}

#[test]
fn options_that_contradict_the_input_are_errors() {
    let seen = format!("{SAFE}---\n{}", apiserver("cp", "v1.21.0", ""));
    for (input, more, message) in [
        (&*seen, &["--apiserver-version", "1.20"][..], "contradicts what is seen: cp is 1.21"),
        (
            &seen,
            &["--apiserver-feature-gates", "StreamingProxyRedirects=false"],
            "contradicts the command line of cp",
        ),
        (SAFE, &["--apiserver-feature-gates", ""], "needs --apiserver-version"),
        (
            SAFE,
            &["--apiserver-version", "1.21", "--apiserver-feature-gates", "x"],
            "--feature-gates holds \"x\"",
        ),
        (SAFE, &["--context", "c"], "-f reads files and no cluster"),
        (SAFE, &["--as", "jane"], "-f reads files and no cluster"),
    ] {
        let ran = plan(input, more);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{more:?}");
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
    }
    assert_eq!(plan(&seen, &["--apiserver-version", "v1.21.3"]).code, Some(0));
}

#[test]
fn an_agents_report_is_evidence() {
    let node = SAFE.replace("v1.20.15", "v1.19.0");
    let known = "apiVersion: sluice.dev/v1alpha1
kind: StreamingNode
metadata: {name: worker-1, uid: u}
spec: {}
status:
  evidence: [{source: Agent, says: Absent, since: '2026-01-02T03:04:05Z'}]
  agent: {flag: Absent, since: '2026-01-02T03:04:05Z'}
";
    let input = format!("{known}---\n{node}---\n{}", apiserver("cp", "v1.20.0", ""));
    // A report outlives its agent, and then says nothing of today.
    let alone = plan(&input, &[]);
    assert_eq!(alone.code, Some(2));
    assert!(
        alone.stderr.contains("no pod of an agent of worker-1 is in the files"),
        "{}",
        alone.stderr
    );
    let ending = agent("worker-1").replace("status: 'True'", "status: 'False'");
    assert_eq!(plan(&format!("{input}---\n{ending}"), &[]).code, Some(2));
    let input = format!("{input}---\n{}", agent("worker-1"));
    assert_eq!(plan(&input, &[]).code, Some(0));
    let seen = &items(&input, &[])[1];
    assert_eq!(seen["status"]["decidedBy"], "Agent");
    assert_eq!(seen["status"]["evidence"][0]["since"], "2026-01-02T03:04:05Z");
    assert_eq!(seen["status"]["agent"]["flag"], "Absent");
    assert_eq!(seen["metadata"]["uid"], "u");
}

#[test]
fn a_policy_with_a_proxy_hears_what_becomes_of_the_streams() {
    let proxy = policy("{proxy: {maxConnectionBytesPerSec: 1Mi}}");
    let input = format!("{SAFE}---\n{}---\n{proxy}", apiserver("cp", "v1.21.0", ""));
    let known = "apiVersion: sluice.dev/v1alpha1
kind: StreamingNode
metadata: {name: worker-1}
spec: {}
status:
  agent: {flag: Absent, since: '2026-01-02T03:04:05Z', streams: Relayed}
";
    for (input, status, reason) in [
        (input.clone(), "False", "AgentsNotReady"),
        (format!("{input}---\n{known}---\n{}", agent("worker-1")), "True", "Relaying"),
    ] {
        let seen = &items(&input, &[])[0];
        let condition = condition(seen, "ProxyReady");
        assert_eq!((&condition["status"], &condition["reason"]), (&status.into(), &reason.into()));
        // The streams are another matter than the gate.
        assert_eq!(plan(&input, &[]).code, Some(0));
    }
}

#[test]
fn mistakes_in_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    let apiserver = apiserver("cp", "v1.20.15", "");
    let policy = policy("{streamingProxyRedirect: Disabled}");
    fs::write(&file, format!("{SAFE}---\n{policy}---\n{apiserver}")).unwrap();
    let path = file.to_str().unwrap();
    let ran = run(&["plan", "-f", path], "");
    assert_eq!(ran.code, Some(1));
    let told = format!(
        "error: {path}, document 2: StreamingPolicy p: spec.streamingProxyRedirect: unknown field\n\
         error: not all of the input was judged: correct what is named above\n"
    );
    assert_eq!(ran.stderr, told);
    // What could be read is judged, and not found safe.
    assert!(ran.stdout.contains("Refused: InputUnread"), "{}", ran.stdout);
    let json = run(&["plan", "-f", path, "-o", "json"], "").stdout;
    assert!(json.contains("InputUnread") && !json.contains("may be turned off"), "{json}");
    assert!(!json.contains("\"status\": \"True\""), "{json}");
    fs::write(&file, "kind: [\n").unwrap();
    let ran = run(&["plan", "-f", path, "-f", "examples/policy.yaml"], "");
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{}", ran.stderr);
    let ran = run(&["plan", "-f", path, "-f", CLUSTER, "--target", "1.24"], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("Refused: NodesRedirectWhileLagging"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("On the way to"), "{}", ran.stdout);

    for (args, message) in [
        (&["plan", "-f", "no-such-file.yaml"][..], "cannot read no-such-file.yaml: "),
        (&["plan", "-f", "https://x.example/nodes.yaml"], "is a URL: save what is there"),
        (&["plan", "-f", "src/cli"], "src/cli holds no .yaml, .yml or .json file"),
        (&["plan", "-f", "examples/policy.yaml"], "there is no Node to judge"),
        (&["plan"], "no cluster to ask"),
        (&["check"], "no cluster to ask"),
        (&["plan", "--target", "latest"], "not a Kubernetes version"),
        (
            &["plan", "-f", CLUSTER, "--target", "1.99"],
            "nothing is known of 1.99: the newest version",
        ),
        (&["plan", "--no-such-option"], "unexpected argument"),
    ] {
        let ran = run(args, "");
        assert_eq!(ran.code, Some(1), "{args:?}");
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
    }
}

#[test]
fn help_is_no_error() {
    for args in [&["--help"][..], &["--version"], &["help", "plan"], &["status", "-h"]] {
        let ran = run(args, "");
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
    assert_eq!(run(&[], "").code, Some(1));
}

#[test]
fn a_canary_repeats_what_it_is_told() {
    let ran = run(&["canary", "repeat"], "word");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "word\n", ""));
    let nameless = run(&["canary"], "");
    assert_eq!(nameless.code, Some(1));
    assert!(nameless.stderr.contains("--pod"), "{}", nameless.stderr);
}

#[test]
fn a_directory_is_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("1.yaml"), SAFE).unwrap();
    fs::write(dir.path().join("2.yml"), SAFE).unwrap();
    fs::write(dir.path().join("3.json"), r#"{"apiVersion": "v1", "kind": "Secret"}"#).unwrap();
    fs::write(dir.path().join("README.md"), "not: [yaml").unwrap();
    let path = dir.path().to_str().unwrap();
    let ran = run(&["plan", "-v", "-f", path, "--apiserver-version", "1.24"], "");
    assert_eq!(ran.code, Some(0));
    let read = "read 1 Node, 0 apiserver Pod, 0 StreamingPolicy, 0 StreamingNode, 0 Endpoints; skipped 1 other objects\n";
    assert_eq!(ran.stderr, read);
    // Which of two is true nobody knows.
    let file = dir.path().join("2.yml");
    fs::write(&file, SAFE.replace("v1.20.15", "v1.19.0")).unwrap();
    let ran = run(&["plan", "-v", "-f", path, "--apiserver-version", "1.24"], "");
    assert_eq!(ran.code, Some(1));
    let said = format!(
        "{read}error: {}, document 1: Node worker-1: it is there twice, and this one says something else: ",
        file.display()
    );
    assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);
}

#[test]
fn as_a_kubectl_plugin_it_says_kubectl_sluice() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-sluice");
    std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin("sluice"), &plugin).unwrap();
    for args in [&["--help"][..], &["plan", "--help"], &["plan", "--nonsense"]] {
        let output = Command::new(&plugin).args(args).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(text.contains("Usage: kubectl sluice"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("  sluice ")), "{text}");
    }
    let output = Command::cargo_bin("sluice").unwrap().args(["plan", "--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Usage: sluice plan") && !text.contains("kubectl sluice"), "{text}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let commands =
        ["plan", "status", "check", "crds", "streams", "controller", "completion", "man"];
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completion", shell], "");
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
        for word in commands {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["completion", "cmd"], "").code, Some(1));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let ran = run(&["man", "--dir", pages.to_str().unwrap()], "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for command in commands {
        let page = fs::read_to_string(pages.join(format!("sluice-{command}.1"))).unwrap();
        assert!(page.contains("Exit codes:"), "{page}");
    }
    let page = fs::read_to_string(pages.join("sluice.1")).unwrap();
    assert_eq!(run(&["man"], "").stdout, page);
}

#[test]
fn the_checked_in_definitions_are_those_of_the_types() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(&["crds", "--dir", dir.path().to_str().unwrap()], "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for file in ["streamingpolicies.yaml", "streamingnodes.yaml"] {
        let made = fs::read_to_string(dir.path().join(file)).unwrap();
        for checked_in in ["crds", "charts/sluice/files/crds"] {
            let path = Path::new(checked_in).join(file);
            let text = fs::read_to_string(&path).unwrap();
            assert!(made == text, "{} is old: run `make generate`", path.display());
        }
    }
    let printed = run(&["crds"], "").stdout;
    assert_eq!(printed.matches("kind: CustomResourceDefinition").count(), 2);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("sluice"))
        .arg("crds")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}
