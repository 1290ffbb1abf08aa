//! Sluice that changes the cluster itself: two control-plane nodes, the chart's remediators, and a
//! client that execs all the time.

use std::path::Path;
use std::process::Command;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    api::{STREAMING_NODES, is_ready},
    bed::Bed,
    operator::{self, NAMESPACE, POLICY, SECONDS},
};

/// The control planes.
pub const BOTH: [&str; 2] = ["cp1", "cp2"];
/// What the policies of these tests want on the command line of an apiserver.
pub const OFF: &str = "StreamingProxyRedirects=false";
/// All nodes.
pub const NODES: [&str; 5] = ["cp1", "cp2", "new1", "old1", "old2"];
/// Where the canaries live.
pub const CANARIES: &str = "sluice-system-canary";
/// A rollout over two apiservers on a machine of two cores: each restarts in some 30 s.
pub const ROLLOUT: Duration = Duration::from_secs(420);
/// For canaries to be ready again, and the streams to all of them to be tried.
const CHECKED: Duration = Duration::from_secs(90);
/// An exec that a client repeats, through whichever apiserver answers, comes through within this: a kubelet's restart.
const RETRIES: Duration = Duration::from_secs(20);

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const TYPO: &str = "/etc/kubernetes/kube-apiserver.typo.yaml";

/// Two control planes, and Sluice with its remediators and without a policy.
#[track_caller]
pub fn fresh(bed: &Bed) {
    bed.add("cp2", &["kubelet=1.20.15", "role=control-plane"]);
    with_remediators(bed, &NODES);
}

/// The same with one control plane.
#[track_caller]
pub fn fresh_alone(bed: &Bed) {
    with_remediators(bed, &["cp1", "new1", "old1", "old2"]);
}

/// A kubelet makes the containers of a static pod that it has seen before wait longer with each return, and these tests
/// turn one gate to and fro. One that has just started has seen none.
#[track_caller]
pub fn forget_returns(bed: &Bed, node: &str) {
    bed.host_exec(node, &["systemctl", "restart", "kubelet"]).succeeded();
}

#[track_caller]
fn with_remediators(bed: &Bed, nodes: &[&str]) {
    forget_returns(bed, "cp1");
    operator::fresh_with(
        bed,
        &[
            "--set",
            "remediators.apiserver.enabled=true",
            "--set",
            "remediators.kubelet.enabled=true",
        ],
    );
    for node in nodes {
        canary_of(bed, node);
    }
}

/// Waits for the canary on a node; returns its name.
#[track_caller]
pub fn canary_of(bed: &Bed, node: &str) -> String {
    let what = format!("the canary on {node}");
    bed.wait_for(&what, Duration::from_secs(90), || canary(bed, node))
}

/// The policy of these tests.
#[track_caller]
pub fn policy(bed: &Bed, more: &str) {
    policy_within(bed, 120, more);
}

/// The same with so many seconds for each step.
#[track_caller]
pub fn policy_within(bed: &Bed, seconds: u32, more: &str) {
    bed.apply(&format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {POLICY}}}\n\
         spec: {{apply: StaticPod, stepDeadlineSeconds: {seconds}, proxy: {{mode: Disabled}}, {more}}}\n"
    ));
}

/// Waits until the node's apiserver runs with these gates, or with none. No apiserver is asked: it may be the only one.
#[track_caller]
pub fn runs_with_gates(bed: &Bed, node: &str, gates: Option<&str>) {
    let line = ["sh", "-c", "tr '\\0' '\\n' </proc/$(pgrep -xo kube-apiserver)/cmdline"];
    bed.wait_for(&format!("{node}'s apiserver to run with {gates:?}"), ROLLOUT, || {
        let running = bed.host_exec(node, &line);
        let mut lines = running.text().lines();
        let set = lines.find_map(|line| line.strip_prefix("--feature-gates="));
        (running.text().contains("kube-apiserver") && set == gates).then_some(())
    });
    apiserver_is_ready(bed, node, true);
    bed.wait_for("the load balancer to see it", ROLLOUT, || bed.ready().then_some(()));
}

/// Waits for a condition's status and reason, as long as a rollout may take; returns its message.
#[track_caller]
pub fn ends(bed: &Bed, kind: &str, status: &str, reason: &str) -> String {
    operator::becomes_within(bed, ROLLOUT, kind, status, reason)
}

/// The name of the ready canary on a node.
pub fn canary(bed: &Bed, node: &str) -> Option<String> {
    let on_node = format!("fieldSelector=spec.nodeName={node}");
    let pods = bed.get(&format!("/api/v1/namespaces/{CANARIES}/pods?{on_node}"))?;
    let pod = pods["items"].as_array()?.iter().find(|pod| is_ready(pod))?;
    pod["metadata"]["name"].as_str().map(str::to_owned)
}

/// The manifest of the node's apiserver, byte for byte.
#[track_caller]
pub fn manifest(bed: &Bed, node: &str) -> String {
    bed.host_exec(node, &["cat", MANIFEST]).succeeded().stdout
}

/// What the manifest sets of feature gates, if anything.
#[track_caller]
fn gates(bed: &Bed, node: &str) -> Option<String> {
    let manifest = manifest(bed, node);
    let mut lines = manifest.lines().map(str::trim);
    lines.find_map(|line| line.strip_prefix("- --feature-gates=").map(str::to_owned))
}

/// The manifests of both control planes as they ought to be: as they were, or with the gate off and nothing else changed.
#[track_caller]
pub fn old_or_new(bed: &Bed, node: &str, original: &str) -> bool {
    let now = manifest(bed, node);
    if now == original {
        return false;
    }
    let added = "    - --feature-gates=StreamingProxyRedirects=false\n";
    assert_eq!(now.replacen(added, "", 1), original, "{node}: nothing else is changed");
    assert_eq!(now.matches("StreamingProxyRedirects").count(), 1, "{node}");
    true
}

/// Waits until kubeadm would start an apiserver with these gates, or with none: its configuration follows what has proven
/// itself.
#[track_caller]
pub fn kubeadm_follows(bed: &Bed, gates: Option<&str>) {
    bed.wait_for("kubeadm's configuration to follow", ROLLOUT, || {
        (kubeadm_gates(bed).as_deref() == gates).then_some(())
    });
}

/// Waits until `sluice check` of these nodes, or of all, ends with that code and says that. A node's canary is not ready
/// until a kubelet that has been restarted has probed it, and then is not tried.
#[track_caller]
pub fn checked(bed: &Bed, nodes: &[&str], code: i32, says: &[&str]) {
    let of = nodes.iter().flat_map(|node| ["--node", node]);
    let args: Vec<&str> = ["check"].into_iter().chain(of).collect();
    let mut last = String::new();
    bed.wait_for(&format!("sluice {args:?} to end with {code} and say {says:?}"), CHECKED, || {
        let check = bed.sluice(&args);
        let now = check.to_string();
        if now != last {
            eprintln!("{now}");
            last = now;
        }
        let said = says.iter().all(|words| check.stdout.contains(words));
        (check.code() == Some(code) && said).then_some(())
    });
}

/// Waits until `sluice plan` of the live cluster refuses an upgrade to that version with such steps. It believes only agents
/// that are ready, which they are not until a kubelet that has been restarted has probed them.
#[track_caller]
pub fn planned(bed: &Bed, target: &str, such: impl Fn(&[Value]) -> bool) {
    let mut last = Value::Null;
    bed.wait_for(&format!("sluice plan --target {target} to name the steps"), CHECKED, || {
        let plan = bed.sluice(&["plan", "--target", target, "-o", "json"]);
        let list: Value = serde_json::from_str(&plan.stdout).ok()?;
        let upgrade = list["items"].as_array()?.iter().find(|i| i["kind"] == "UpgradePlan")?;
        if upgrade["steps"] != last {
            eprintln!("{}", upgrade["steps"]);
            last = upgrade["steps"].clone();
        }
        (plan.code() == Some(2) && such(upgrade["steps"].as_array()?)).then_some(())
    });
}

/// What kubeadm would start an apiserver with.
#[track_caller]
pub fn kubeadm_gates(bed: &Bed) -> Option<String> {
    let config = bed.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").expect("it");
    let text = config["data"]["ClusterConfiguration"].as_str().expect("text").to_owned();
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| line.strip_prefix("feature-gates: ").map(str::to_owned))
}

/// The change that is wanted of a node, and what its remediator says of it: id, phase.
pub fn change(bed: &Bed, node: &str) -> (Option<String>, Option<String>) {
    let Some(object) = bed.get(&format!("{STREAMING_NODES}/{node}")) else { return (None, None) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&object["spec"]["change"]["id"]);
    let report = &object["status"]["change"];
    let phase = text(&report["phase"]).filter(|_| text(&report["id"]) == id);
    (id, phase)
}

/// From one exec of a [`Client`] to the next. What breaks breaks for longer, and as many as go would leave the other
/// clusters of this machine little of it.
const PACE: Duration = Duration::from_secs(1);

/// A client that execs into every node in turn, all the time.
pub struct Client {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Client {
    /// Each exec goes through one apiserver, and if that does not work, through the other, and so on for a while.
    #[track_caller]
    pub fn start(bed: &Bed) -> Self {
        let targets: Vec<(String, String)> =
            NODES.map(|node| (node.to_owned(), canary_of(bed, node))).into();
        let ending = Arc::new(AtomicBool::new(false));
        let (over, command) = (ending.clone(), bed.commands());
        let through = BOTH.map(|node| bed.kubeconfig_of(node));
        // What the test itself has just restarted is not Sluice's to keep up.
        for (node, pod) in &targets {
            for kubeconfig in &through {
                bed.wait_for(&format!("an exec to {node} before others"), CHECKED, || {
                    exec(&command, kubeconfig, pod).ok()
                });
            }
        }
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            let (mut count, mut worst) = (0, Duration::ZERO);
            for (node, pod) in targets.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let mut said = String::new();
                let mut tries = through.iter().cycle().take_while(|_| began.elapsed() < RETRIES);
                let works = tries.any(|kubeconfig| {
                    exec(&command, kubeconfig, pod).map_err(|error| said = error).is_ok()
                });
                count += 1;
                worst = worst.max(began.elapsed());
                if !works {
                    failures.push(format!("{node}: {said}"));
                }
                std::thread::sleep(PACE.saturating_sub(began.elapsed()));
            }
            eprintln!("{count} execs, the slowest took {:.1} s", worst.as_secs_f64());
            failures
        });
        Self { ending, thread: Some(thread) }
    }

    /// Ends it; fails the test if an exec did not come through.
    #[track_caller]
    pub fn had_no_failure(mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        assert_eq!(thread.join().expect("the client"), Vec::<String>::new());
    }
}

/// One exec into a canary through one apiserver: nothing, or what kubectl said instead.
fn exec(command: impl Fn(&str) -> Command, kubeconfig: &Path, pod: &str) -> Result<(), String> {
    let mut kubectl = command("kubectl");
    kubectl.arg("--kubeconfig").arg(kubeconfig);
    kubectl.args(["--request-timeout=5s", "exec", "-n", CANARIES, pod, "--"]);
    let output = kubectl.args(["/sluice", "--version"]).output().expect("run kubectl");
    let works = output.status.success() && output.stdout.starts_with(b"sluice ");
    if works { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// Turns the gate off on `node` and has somebody mistype another gate in the same moment, which no apiserver starts with.
#[track_caller]
pub fn turn_off_with_a_typo(bed: &Bed, node: &str) {
    policy(bed, "streamingProxyRedirects: Disabled");
    bed.wait_for("the edit", ROLLOUT, || gates(bed, node).filter(|set| set == OFF));
    // Written elsewhere and renamed: the kubelet reads every file in the folder, half-written ones too.
    let edit = format!(
        "cp -p {MANIFEST} {TYPO}; sed -i 's/{OFF}/{OFF},NoSuchGate=true/' {TYPO}; mv {TYPO} {MANIFEST}"
    );
    bed.host_exec(node, &["sh", "-euc", &edit]).succeeded();
}

/// Waits until the node's apiserver is ready, or until it is not.
#[track_caller]
pub fn apiserver_is_ready(bed: &Bed, node: &str, ready: bool) {
    bed.wait_for(&format!("the apiserver of {node}, ready {ready}"), ROLLOUT, || {
        (bed.ready_on(node) == ready).then_some(())
    });
}

/// Waits until the kubelet runs with the redirect flag, or without it.
#[track_caller]
pub fn runs_with_flag(bed: &Bed, node: &str, flag: bool) {
    let line = ["sh", "-c", "tr '\\0' ' ' </proc/$(pgrep -xo kubelet)/cmdline"];
    bed.wait_for(&format!("{node}'s kubelet to run, the flag {flag}"), SECONDS, || {
        // While it restarts there is none.
        let running = bed.host_exec(node, &line);
        let has = running.text().contains("redirect-container-streaming");
        (running.text().contains("kubelet") && has == flag).then_some(())
    });
}

/// Kills the leader, whose pod then starts it again or not.
#[track_caller]
pub fn kill_controller(bed: &Bed) {
    // Between two leaders there is none.
    bed.wait_for("a leader to kill", SECONDS, || {
        let leader = operator::leader(bed)?;
        let pod = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{leader}"))?;
        let (node, uid) = (pod["spec"]["nodeName"].as_str()?, pod["metadata"]["uid"].as_str()?);
        // The process whose cgroup is the pod's.
        let find = format!(
            "for p in $(pgrep -f 'sluice controller'); do \
               grep -q {uid} /proc/$p/cgroup && kill -KILL $p && echo killed; done"
        );
        let killed = bed.host_exec(node, &["sh", "-c", &find]);
        killed.stdout.contains("killed").then_some(())
    });
}

/// Kills the remediator of the node's apiserver.
#[track_caller]
pub fn kill_remediator(bed: &Bed, node: &str) {
    bed.wait_for("a remediator to kill", SECONDS, || {
        let find = "pkill -KILL -f '[s]luice remediator --kind=ApiserverGate' && echo killed";
        bed.host_exec(node, &["sh", "-c", find]).stdout.contains("killed").then_some(())
    });
}
