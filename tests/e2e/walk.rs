//! An upgrade walked from 1.20 to 1.24, through every minor that the bed has binaries of. Before each step `sluice plan`,
//! which is given what kubectl prints, has to say what the policy in the cluster says; after it real execs and real starts
//! have to show what was foretold: nothing that did not break, and nothing else that did.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{
    agent::{self, NAMESPACE, START, pod, relayed},
    api::{POLICIES, STREAMING_NODES},
    bed::{Bed, Client},
    operator::{POLICY, SECONDS, becomes, node_status},
};

const NODES: [&str; 4] = ["cp1", "new1", "old1", "old2"];
const FLAG: &str = "--redirect-container-streaming";
const GATE_ON: &str = "--feature-gates=StreamingProxyRedirects=true";
const REFUSED: &str = "invalid upgrade response: status code 302";
/// A kubelet's restart, and the first words of its agent.
const RESTART: Duration = Duration::from_secs(60);

type Nodes = BTreeSet<String>;

fn nodes(names: &[&str]) -> Nodes {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What is said of an upgrade before it is made.
#[derive(Debug, PartialEq, Eq)]
pub struct Foretold {
    /// The nodes on which every exec fails once the apiservers are upgraded.
    failing: Nodes,
    /// Those whose kubelets do not start once they are upgraded.
    refusing: Nodes,
    /// Whether the apiservers do not start with the flags that they have.
    apiserver_refuses: bool,
}

impl Foretold {
    pub fn nothing() -> Self {
        Self { failing: Nodes::new(), refusing: Nodes::new(), apiserver_refuses: false }
    }
}

/// What `kubectl get` prints for `sluice plan`, and what that makes of it.
fn planned(bed: &Bed) -> (Value, Vec<Value>) {
    let kinds = "nodes,pods,streamingpolicies,streamingnodes";
    let dump = bed.kubectl(&["get", kinds, "-A", "-o", "yaml"]).succeeded();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("create a file");
    std::fs::write(file.path(), &dump.stdout).expect("write the dump");
    let path = file.path().to_str().expect("a path in UTF-8");
    // It refuses by its exit code, too.
    let plan = bed.sluice(&["plan", "-f", path, "-o", "json"]).json();
    let items = plan["items"].as_array().expect("a list").clone();
    let policy = items.iter().find(|item| item["kind"] == "StreamingPolicy");
    (policy.expect("the policy").clone(), items)
}

/// What does not depend on when it was written.
fn verdict(policy: &Value) -> Value {
    let conditions = policy["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let told = ["SafeToDisable", "RedirectsDisabled", "UpgradeSafe"].map(|kind| {
        let found = conditions.iter().find(|c| c["type"] == kind);
        found.map(|c| [&c["status"], &c["reason"], &c["message"]].map(Clone::clone))
    });
    let status = &policy["status"];
    serde_json::json!([told, status["gate"], status["blocking"], status["upgrades"]])
}

/// Has the policy and the plan judge that target, and returns what both say.
#[track_caller]
pub fn foretold(bed: &Bed, version: &str) -> Foretold {
    let minor = minor(version);
    let patch = format!(r#"{{"spec":{{"targetVersion":"{minor}"}}}}"#);
    bed.kubectl(&["patch", "streamingpolicy", POLICY, "--type=merge", "-p", &patch]).succeeded();
    let mut last = None;
    let what = "plan and policy to say the same of nodes of which agents tell";
    // Agents are believed while they are ready, and may have to be probed again by a kubelet that has been restarted.
    let (policy, items) = bed.wait_for(what, START, || {
        let stored = bed.get(&format!("{POLICIES}/{POLICY}"))?;
        let (planned, items) = planned(bed);
        let both = (verdict(&stored), verdict(&planned));
        let fields = ["redirects", "flag", "cellToday", "cellGateOff"];
        let told = fields.iter().all(|field| with(&items, field, "Unknown").is_empty());
        let same = told && both.0 == both.1 && stored["spec"]["targetVersion"] == *minor;
        if !same && last.as_ref() != Some(&both) {
            eprintln!("the policy: {}\nthe plan:   {}", both.0, both.1);
            last = Some(both);
        }
        same.then_some((planned, items))
    });
    let upgrades = policy["status"]["upgrades"].as_array().expect("what is ahead");
    let ahead = upgrades.iter().find(|u| u["version"] == *minor).expect("that minor");
    let says =
        |reason: &str| ahead["reasons"].as_array().is_some_and(|r| r.contains(&reason.into()));
    let cell = if ahead["gate"] == "Enabled" { "cellToday" } else { "cellGateOff" };
    let foretold = Foretold {
        failing: with(&items, cell, "Broken"),
        refusing: if says("KubeletRefusesFlag") {
            with(&items, "flag", "On")
        } else {
            Nodes::new()
        },
        apiserver_refuses: says("ApiserverRefusesGate"),
    };
    eprintln!("{minor}: {foretold:?}; {}", ahead["message"]);
    assert_eq!(ahead["safe"], foretold == Foretold::nothing(), "{ahead}");
    assert_eq!(ahead["breakingNodes"], foretold.failing.len(), "{ahead}");
    foretold
}

/// The nodes whose StreamingNodes have that in a field of their status.
fn with(items: &[Value], field: &str, value: &str) -> Nodes {
    let found = items.iter().filter(|item| item["kind"] == "StreamingNode");
    let found = found.filter(|node| node["status"][field] == value);
    found.map(|node| node["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn minor(version: &str) -> String {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned()
}

/// The nodes on which exec fails, as it does where nobody follows a redirect. Whatever else a kubectl says passes.
#[track_caller]
fn failing(bed: &Bed) -> Nodes {
    let mut failing = Nodes::new();
    for node in NODES {
        let fails = Client::BOTH.map(|client| {
            bed.wait_for(&format!("an answer from {node}"), SECONDS, || {
                let exec = bed.kubectl_of(client, &["exec", "-n", NAMESPACE, node, "--", "true"]);
                let refused = exec.stderr.contains(REFUSED);
                (exec.success() || refused).then_some(refused)
            })
        });
        assert_eq!(fails[0], fails[1], "{node} fails for one kubectl only");
        if fails[0] {
            failing.insert(node.to_owned());
        }
    }
    failing
}

/// Puts that kubelet in the place of the node's: whether it comes up.
#[track_caller]
fn comes_up(bed: &Bed, node: &str, version: &str) -> bool {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock").as_secs();
    let since = format!("--since=@{since}");
    bed.kubelet(node, version);
    let refusal = ["--unit=kubelet", "--output=cat", &since, "--grep=unknown flag"];
    let came =
        bed.wait_for(&format!("kubelet {version} on {node} to come up or not"), RESTART, || {
            // A refusal prints all flags after it: more lines than a journal is asked for without need.
            let log = bed.host_exec(node, &[&["journalctl", "--lines=1"][..], &refusal].concat());
            if log.stdout.contains(FLAG) {
                return Some(false);
            }
            is_up(bed, node, version).then_some(true)
        });
    eprintln!("kubelet {version} on {node} {}", if came { "came up" } else { "did not start" });
    came
}

/// Whether that kubelet has said that it is ready, and its StreamingNode is of it.
fn is_up(bed: &Bed, node: &str, version: &str) -> bool {
    let version = format!("v{version}");
    let up = bed.get(&format!("/api/v1/nodes/{node}")).is_some_and(|node| {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        node["status"]["nodeInfo"]["kubeletVersion"] == *version
            && node["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
    });
    up && node_status(bed, node, "kubeletVersion") == Some(version)
}

/// Each kubelet comes up with that version unless it was foretold that it would not, and then does without its flag.
#[track_caller]
fn upgrade_kubelets(bed: &Bed, version: &str, upgraded: &[&str], foretold: &Foretold) {
    for node in upgraded {
        let came = comes_up(bed, node, version);
        if came {
            relayed(bed, node);
        }
        assert_eq!(came, !foretold.refusing.contains(*node), "{node}'s kubelet {version}");
        if came {
            continue;
        }
        let edit = format!("s/ {FLAG}=true//");
        bed.host_exec(node, &["sed", "-i", &edit, "/etc/default/kubelet"]).succeeded();
        bed.host_exec(node, &["systemctl", "restart", "kubelet"]).succeeded();
        bed.wait_for(&format!("{node}'s kubelet {version} without its flag"), RESTART, || {
            let settled = is_up(bed, node, version)
                && bed.get(&format!("{STREAMING_NODES}/{node}"))?["status"]["flag"] != "On";
            settled.then_some(())
        });
    }
}

/// Whether an apiserver of that version ends with the flags that cp1's has now.
#[track_caller]
fn apiserver_refuses(bed: &Bed, version: &str) -> bool {
    let binary = bed.binary(version, "kube-apiserver");
    // It reads its flags before it takes the port that is taken. kubeadm 1.20 sets one that its own upgrades take away.
    let script = "tr '\\0' '\\n' </proc/$(pgrep -xo kube-apiserver)/cmdline | grep -v '^--insecure-port=' | \
                  xargs -d '\\n' sh -c 'exec timeout 60 \"$BINARY\" \"$@\"'";
    let binary = format!("BINARY={}", binary.display());
    let ended = bed.host_exec("cp1", &["env", &binary, "sh", "-c", script]);
    let said = ended.failed();
    let refused = said.contains("unrecognized feature gate: StreamingProxyRedirects");
    assert!(refused || said.contains("address already in use"), "{said}");
    refused
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn an_upgrade_walked_in_full_breaks_what_was_foretold_and_nothing_else() {
    let bed = Bed::shared();
    bed.replace("old1", &["kubelet=1.19.16", "redirect=true"]);
    agent::fresh(&bed, "{mode: Streams}");
    NODES.iter().for_each(|node| pod(&bed, node));
    let apiservers = bed.versions_of("kube-apiserver");
    let kubelets = bed.versions_of("kubelet");
    let built = |versions: &[String], minor: &str| {
        versions.iter().find(|v| v.starts_with(&format!("{minor}."))).cloned()
    };
    assert_eq!(failing(&bed), Nodes::new());

    // 1.21: nothing changes, and its kubelets ignore the flag.
    if let Some(version) = built(&apiservers, "1.21") {
        let foretold = foretold(&bed, &version);
        assert_eq!(foretold, Foretold::nothing());
        bed.apiserver(&version, &[]);
        assert_eq!(failing(&bed), foretold.failing);
        if let Some(version) = built(&kubelets, "1.21") {
            upgrade_kubelets(&bed, &version, &["cp1", "new1"], &foretold);
            assert_eq!(failing(&bed), Nodes::new());
        }
    }

    // 1.22: the gate is off unless set, and kubelets refuse the flag.
    let version = built(&apiservers, "1.22").expect("an apiserver 1.22");
    let before = foretold(&bed, &version);
    let both = nodes(&["new1", "old1"]);
    assert_eq!((&before.failing, &before.refusing), (&nodes(&["old1"]), &both));
    bed.apiserver(&version, &[]);
    assert_eq!(failing(&bed), before.failing);
    // The way back that the plan names.
    bed.apiserver(&version, &[GATE_ON]);
    assert_eq!(failing(&bed), Nodes::new());
    let kubelet = built(&kubelets, "1.22").expect("a kubelet 1.22");
    // That version is no longer ahead; what is left to say of it is about the kubelets.
    let message = becomes(&bed, "UpgradeSafe", "False", "KubeletRefusesFlag");
    assert!(message.contains("The kubelet of new1 and old1 will not start"), "{message}");
    upgrade_kubelets(&bed, &kubelet, &["new1", "old2", "old1"], &before);
    assert_eq!(failing(&bed), Nodes::new());

    // 1.24: the gate is gone, and an apiserver refuses it.
    let last = built(&apiservers, "1.24").expect("an apiserver 1.24");
    let with_gate = foretold(&bed, &last);
    assert_eq!(with_gate, Foretold { apiserver_refuses: true, ..Foretold::nothing() });
    assert!(apiserver_refuses(&bed, &last));
    becomes(&bed, "SafeToDisable", "True", "NoNodeRedirects");
    bed.apiserver(&version, &[]);
    assert_eq!(failing(&bed), Nodes::new());

    for minor in ["1.23", "1.24"] {
        let Some(version) = built(&apiservers, minor) else { continue };
        let foretold = foretold(&bed, &version);
        assert_eq!(foretold, Foretold::nothing());
        assert!(!apiserver_refuses(&bed, &version));
        bed.apiserver(&version, &[]);
        assert_eq!(failing(&bed), foretold.failing);
        if let Some(version) = built(&kubelets, minor) {
            upgrade_kubelets(&bed, &version, &["cp1", "new1"], &foretold);
            assert_eq!(failing(&bed), Nodes::new());
        }
    }
    // Nothing is ahead any more.
    becomes(&bed, "RedirectsDisabled", "True", "GateRemoved");
    becomes(&bed, "UpgradeSafe", "True", "NothingBreaks");
}
