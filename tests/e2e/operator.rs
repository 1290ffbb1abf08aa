//! Sluice as its users install it: by helm, and read by kubectl.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::api::{POLICIES, STREAMING_NODES, is_ready};
use crate::bed::{Bed, Client, Output};

/// Where the chart is installed.
pub const NAMESPACE: &str = "sluice-system";
/// The policy of `examples/policy.yaml`.
pub const POLICY: &str = "cluster";
/// The admin's word about a kubelet.
pub const ANNOTATION: &str = "sluice.dev/redirect-container-streaming";
/// What "within seconds" is allowed to mean on a machine of two cores that runs four hosts: usually one or two, but a
/// leader may lose its Lease on the way, and the next one starts after 15.
pub const SECONDS: Duration = Duration::from_secs(45);

/// The garbage collector's time: its watches back off for up to a minute when an apiserver has been replaced, and it looks
/// for kinds that it does not know every half minute.
pub const COLLECTED: Duration = Duration::from_secs(180);

/// The agents' grace for running streams, and the garbage collector's time.
const AGENTS_END: Duration = Duration::from_secs(180);
/// Until a replica leads and the apiserver reaches it: a kubelet makes a container that has ended several times wait, and
/// kube-proxy's watches back off while an apiserver is replaced.
const LEADS: Duration = Duration::from_secs(180);

/// What the test bed calls the image that it builds.
const IMAGE: &str = "image.repository=localhost/sluice";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policy.yaml");

/// One condition of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Condition {
    /// Status and reason in one, as tests compare them.
    pub fn brief(&self) -> (&str, &str) {
        (&self.status, &self.reason)
    }
}

/// Installs the chart with this checkout's image, or upgrades it, and waits until both replicas are ready.
#[track_caller]
pub fn install(bed: &Bed, extra: &[&str]) -> Output {
    bed.image();
    // Replicas that an absent apiserver has ended several times would be started again only after minutes. Their pods tell, by
    // their kubelets: the Deployment is as its controller has seen it, which may be long ago when an apiserver was replaced.
    let replicas = "labelSelector=app.kubernetes.io/component=controller";
    let pods = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods?{replicas}")).expect("a list");
    let pods = pods["items"].as_array().into_iter().flatten().filter(|pod| !is_ready(pod));
    for pod in pods.filter_map(|pod| pod["metadata"]["name"].as_str()) {
        let delete = ["delete", "pod", pod, "-n", NAMESPACE, "--ignore-not-found", "--wait=false"];
        bed.kubectl(&delete).succeeded();
    }
    let args = ["upgrade", "--install", "sluice", CHART, "--namespace", NAMESPACE, "--set", IMAGE];
    // The replicas are replaced one after the other, by controllers whose watches may back off for a minute.
    let wait = ["--create-namespace", "--wait", "--timeout", "300s"];
    bed.helm(&[&args[..], &wait, extra].concat()).succeeded()
}

/// The default cluster with Sluice on it and no policy, no agent or what one has said, no admin's word.
#[track_caller]
pub fn fresh(bed: &Bed) {
    fresh_with(bed, &[]);
}

/// The same with these values of the chart.
#[track_caller]
pub fn fresh_with(bed: &Bed, values: &[&str]) {
    install(bed, values);
    bed.wait_for("the agents to be gone", AGENTS_END, || {
        let agents = "pods?labelSelector=app.kubernetes.io/component=agent";
        let agents = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/{agents}"))?;
        agents["items"].as_array()?.is_empty().then_some(())
    });
    // A test of Pod Security may have failed.
    let label = "pod-security.kubernetes.io/enforce-";
    bed.kubectl(&["label", "namespace", NAMESPACE, label]).succeeded();
    bed.wait_for("the webhook to be asked", LEADS, || refuses(bed).then_some(()));
    // An agent that a test has killed takes its report nowhere. One of two replicas may still be out of the apiserver's reach.
    bed.wait_for("what is said of nodes to go", LEADS, || {
        bed.kubectl(&["delete", "streamingnodes", "--all"]).success().then_some(())
    });
    bed.kubectl(&["annotate", "nodes", "--all", &format!("{ANNOTATION}-")]).succeeded();
    bed.wait_for("a leader to say something of every node", LEADS, || judges(bed).then_some(()));
}

/// Whether the webhook is heard: it refuses what nobody can mean, and without it the apiserver lets that in.
fn refuses(bed: &Bed) -> bool {
    let policy = format!(
        "{{apiVersion: sluice.dev/v1alpha1, kind: StreamingPolicy, metadata: {{name: {POLICY}}}, spec: \
         {{streamingProxyRedirects: Disabled, apply: StaticPod, overrides: [{{node: old1, reason: gone, \
         expires: \"2020-01-01T00:00:00Z\"}}]}}}}"
    );
    let create = ["create", "--dry-run=server", "-f", "-"];
    let created = bed.kubectl_fed(Client::Current, &create, Some(&policy));
    created.stderr.contains("expired: old1")
}

/// Whether the controller has a verdict on every node.
fn judges(bed: &Bed) -> bool {
    let names = |path: &str, counts: fn(&Value) -> bool| -> Option<BTreeSet<String>> {
        let list = bed.get(path)?;
        let items = list["items"].as_array()?.iter().filter(|item| counts(item));
        Some(items.map(|item| text(&item["metadata"]["name"])).collect())
    };
    let nodes = names("/api/v1/nodes", |_| true);
    nodes.is_some() && nodes == names(STREAMING_NODES, |node| node["status"]["verdict"].is_string())
}

/// `kubectl apply` of the example, as the README says it.
#[track_caller]
pub fn apply_example(bed: &Bed) {
    bed.kubectl(&["apply", "-f", EXAMPLE]).succeeded();
}

/// The admin's word about one node.
#[track_caller]
pub fn annotate(bed: &Bed, node: &str, redirects: bool) {
    let word = format!("{ANNOTATION}={redirects}");
    bed.kubectl(&["annotate", "node", node, "--overwrite", &word]).succeeded();
}

/// A policy's condition, once it stands for the policy as it is now.
pub fn condition(bed: &Bed, policy: &str, kind: &str) -> Option<Condition> {
    let policy = bed.get(&format!("{POLICIES}/{policy}"))?;
    let conditions = policy["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    (found["observedGeneration"] == policy["metadata"]["generation"]).then(|| Condition {
        status: text(&found["status"]),
        reason: text(&found["reason"]),
        message: text(&found["message"]),
    })
}

/// Looks at a condition of the policy again and again, prints what it turns to, and ends with what `look` makes of it.
#[track_caller]
pub fn watched<T>(
    bed: &Bed,
    what: &str,
    deadline: Duration,
    kind: &str,
    mut look: impl FnMut(Option<&Condition>) -> Option<T>,
) -> T {
    let mut last = None;
    bed.wait_for(what, deadline, || {
        let now = condition(bed, POLICY, kind);
        if now != last {
            eprintln!("{kind}: {now:?}");
            last.clone_from(&now);
        }
        look(now.as_ref())
    })
}

/// Waits for a condition's status and reason; returns its message.
#[track_caller]
pub fn becomes_within(
    bed: &Bed,
    deadline: Duration,
    kind: &str,
    status: &str,
    reason: &str,
) -> String {
    let what = format!("{kind}={status} ({reason}) on {POLICY}");
    watched(bed, &what, deadline, kind, |now| {
        now.filter(|c| c.brief() == (status, reason)).map(|c| c.message.clone())
    })
}

/// The same, as long as what happens at once may take.
#[track_caller]
pub fn becomes(bed: &Bed, kind: &str, status: &str, reason: &str) -> String {
    becomes_within(bed, SECONDS, kind, status, reason)
}

/// Waits for a condition that also has a message of the state as it is now: an older one may stand for a moment with the
/// same reason.
#[track_caller]
pub fn becomes_saying(
    bed: &Bed,
    kind: &str,
    status: &str,
    reason: &str,
    says: impl Fn(&str) -> bool,
) {
    let what = format!("{kind}={status} ({reason}) on {POLICY} in the words of now");
    watched(bed, &what, SECONDS, kind, |now| {
        now.filter(|c| c.brief() == (status, reason) && says(&c.message)).map(drop)
    });
}

/// A field of a StreamingNode's status.
pub fn node_status(bed: &Bed, node: &str, field: &str) -> Option<String> {
    let node = bed.get(&format!("{STREAMING_NODES}/{node}"))?;
    node["status"][field].as_str().map(str::to_owned)
}

/// The Events of a kind of object with this reason: their messages.
pub fn events(bed: &Bed, kind: &str, reason: &str) -> Vec<String> {
    let selector = format!("involvedObject.kind={kind},reason={reason}");
    let events = "/api/v1/namespaces/default/events";
    let events = bed.get(&format!("{events}?fieldSelector={selector}"));
    let items = events.and_then(|events| events["items"].as_array().cloned());
    items.unwrap_or_default().iter().map(|event| text(&event["message"])).collect()
}

/// The pod that holds the Lease.
pub fn leader(bed: &Bed) -> Option<String> {
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let lease = bed.get(&format!("{leases}/sluice-controller"))?;
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
