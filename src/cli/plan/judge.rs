//! From objects to the objects that the controller would write. No I/O, no clock.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::Serialize;

use super::{
    apiservers,
    objects::{Objects, PolicyObject},
    rights::{self, RightsItem},
    upgrade::{UpgradeItem, UpgradePlan},
};
use crate::{
    api::{
        EvidenceEntry, GateWish, StreamingNode, StreamingNodeSpec, StreamingPolicy,
        StreamingPolicySpec, StreamingPolicyStatus, condition,
    },
    cluster::{Cluster, Content, Policy},
    decision::{
        redirects::{node::Verdict, policy::Owner},
        steps::together,
        websockets::{
            rights::{Report, steps::steps as rights_steps},
            safety::WebSocketReason,
        },
    },
    kubernetes::{node_pool, version::Minor},
};

/// The name of the policy that is judged where there is none.
pub const DEFAULT_POLICY: &str = "cluster";

/// Why nothing is found safe where not all of the input could be read.
const INPUT_UNREAD: &str = "InputUnread";
const UNREAD: &str = "Some of the input could not be read, and might stand in the way. Correct what \
                      is named on standard error.";

/// What the user says beside the objects.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The policy to judge for.
    pub policy: Option<String>,
    /// The upgrade to judge.
    pub target: Option<Minor>,
    /// The version of apiservers that are not seen.
    pub apiserver_version: Option<Minor>,
    /// Their `--feature-gates`.
    pub apiserver_gates: Option<String>,
}

/// Why nothing can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no node.
    #[error("there is no Node to judge")]
    NoNodes,
    /// The policy that was asked for does not exist.
    #[error("there is no StreamingPolicy {0:?}")]
    NoPolicy(String),
    /// What the user says of the apiservers cannot be understood.
    #[error("--apiserver-feature-gates: {0}")]
    Gates(String),
    /// The user names a gate that there is not, and nearly the one that he means.
    #[error(
        "--apiserver-feature-gates: there is no gate {name}, with which no apiserver starts: did you mean \
         {meant}?"
    )]
    NoGate {
        /// What he wrote.
        name: String,
        /// What he meant.
        meant: &'static str,
    },
    /// Gates without a version come to nothing.
    #[error("--apiserver-feature-gates needs --apiserver-version: no apiserver's version is known")]
    GatesWithoutVersion,
    /// The user says one version and the apiserver runs another.
    #[error("--apiserver-version {said} contradicts what is seen: {name} is {seen}")]
    OtherVersion {
        /// The apiserver.
        name: String,
        /// Its version.
        seen: Minor,
        /// The user's word.
        said: Minor,
    },
    /// The user says one gate setting and the apiserver runs with another.
    #[error("--apiserver-feature-gates contradicts the command line of {name} about {gate}")]
    OtherGates {
        /// The apiserver.
        name: String,
        /// The gate.
        gate: &'static str,
    },
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoNodes => "NoNodes",
            Self::NoPolicy(_) => "NoPolicy",
            Self::Gates(_) | Self::NoGate { .. } => "FeatureGatesUnreadable",
            Self::GatesWithoutVersion => "GatesWithoutVersion",
            Self::OtherVersion { .. } => "OtherVersion",
            Self::OtherGates { .. } => "OtherGates",
        }
    }
}

/// What the controller would write.
#[derive(Clone, Debug)]
pub struct PlannedStatuses {
    /// The policies, with the judged one first.
    pub policies: Vec<PlannedPolicy>,
    /// The nodes, by name.
    pub nodes: Vec<StreamingNode>,
    /// The pool of machines of each node that blocks, where a label tells it.
    pub pools: BTreeMap<String, String>,
    /// Whose streams end where API servers ask for `create`; `None` where they do not.
    pub rights: Option<Report>,
    /// The upgrade that was asked about, and counts.
    pub upgrade: Option<UpgradePlan>,
}

/// A policy with its status.
#[derive(Clone, Debug)]
pub struct PlannedPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it asks for; `None` where that cannot be read.
    pub spec: Option<StreamingPolicySpec>,
    /// Its status.
    pub status: StreamingPolicyStatus,
}

/// An object of the output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Item<'a> {
    /// A policy.
    Policy(PolicyItem<'a>),
    /// A node.
    Node(&'a StreamingNode),
    /// Whose streams end for want of a right.
    Rights(RightsItem<'a>),
    /// What has to be done before an upgrade.
    Upgrade(UpgradeItem<'a>),
}

/// A policy in the output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyItem<'a> {
    api_version: String,
    kind: String,
    metadata: &'a ObjectMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a StreamingPolicySpec>,
    status: &'a StreamingPolicyStatus,
}

impl PlannedStatuses {
    /// The judged policy.
    pub fn judged(&self) -> Option<&PlannedPolicy> {
        self.policies.first()
    }

    /// Whether the gate must stay, the upgrade that was asked about must not be, or WebSockets fail.
    pub fn is_refused(&self) -> bool {
        let holds = |kind| {
            let found = self.judged().and_then(|policy| policy.condition(kind));
            found.is_some_and(|condition| condition.status == "True")
        };
        // What fails now is refused with or without a target.
        let judged = self.judged().and_then(|policy| policy.condition(condition::WEBSOCKETS_SAFE));
        let fails_now =
            judged.is_some_and(|judged| judged.reason == WebSocketReason::WebSocketsFail.as_str());
        let rights = self.rights.as_ref();
        let ends = rights.is_some_and(|report| report.reason.refuses());
        let ended = rights.is_some_and(Report::refuses_today);
        !holds(condition::SAFE_TO_DISABLE)
            || (self.upgrade.is_some() && (!holds(condition::UPGRADE_SAFE) || ends))
            || fails_now
            || ended
    }

    /// The objects as they are printed.
    pub fn items(&self) -> Vec<Item<'_>> {
        use kube::Resource as _;
        let policies = self.policies.iter().map(|policy| {
            Item::Policy(PolicyItem {
                api_version: StreamingPolicy::api_version(&()).into_owned(),
                kind: StreamingPolicy::kind(&()).into_owned(),
                metadata: &policy.metadata,
                spec: policy.spec.as_ref(),
                status: &policy.status,
            })
        });
        let nodes = self.nodes.iter().map(Item::Node);
        let upgrade = self.upgrade.iter().map(|upgrade| Item::Upgrade(upgrade.item()));
        let rights = self.rights.iter().map(|report| Item::Rights(RightsItem::of(report)));
        policies.chain(nodes).chain(rights).chain(upgrade).collect()
    }
}

impl PlannedPolicy {
    /// One of its conditions.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

/// Judges what was found.
///
/// # Errors
/// Where there is nothing to judge, or the user contradicts what is seen.
pub fn judge(
    mut objects: Objects,
    options: &Options,
    now: Timestamp,
) -> Result<PlannedStatuses, Error> {
    if objects.nodes.is_empty() {
        return Err(Error::NoNodes);
    }
    if objects.policies.is_empty() {
        let spec = StreamingPolicySpec {
            streaming_proxy_redirects: Some(GateWish::Disabled),
            ..StreamingPolicySpec::default()
        };
        let policy = PolicyObject::Readable(Box::new(StreamingPolicy::new(DEFAULT_POLICY, spec)));
        objects.policies.insert(DEFAULT_POLICY.to_owned(), policy);
    }
    let started = apiservers::of_nodes(&objects);
    let mut cluster = cluster(&mut objects);
    let instances = apiservers::instances(cluster.instances(), &started, &objects, options)?;
    cluster.set_instances(instances);

    let chosen = chosen(&cluster, options)?;
    if let (Some(target), Some(PolicyObject::Readable(policy))) =
        (options.target, objects.policies.get_mut(&chosen))
    {
        policy.spec.target_version = Some(target.to_string());
    }
    if let Some(object) = objects.policies.get(&chosen) {
        cluster.set_policy(chosen.clone(), policy(object));
    }

    let doubts = doubts(&objects);
    let content = cluster.policies().get(&chosen).and_then(|policy| policy.content.as_ref().ok());
    let target = options.target.or(content.and_then(|content| content.facts.target));
    let rights = rights::judge(&objects, target, cluster.instances());

    let moment = cluster.at(now);
    let mut policies: Vec<PlannedPolicy> = Vec::new();
    for (name, object) in objects.policies {
        let Some(mut status) = moment.policy_report(&name, None) else { continue };
        if let Some(why) = &doubts {
            doubt(&mut status, why);
        }
        if let Some(report) = rights.as_ref().filter(|_| options.target.is_some() && name == chosen)
        {
            rights::doubt(&mut status, report);
        }
        let (mut metadata, spec) = match object {
            PolicyObject::Readable(policy) => (policy.metadata, Some(policy.spec)),
            PolicyObject::Unreadable { metadata, .. } => (*metadata, None),
        };
        metadata.managed_fields = None;
        policies.push(PlannedPolicy { metadata, spec, status });
    }
    policies.sort_by_key(|policy| policy.metadata.name.as_ref() != Some(&chosen));

    let scene = cluster.node_scene(now);
    let mut pools = BTreeMap::new();
    let mut nodes = Vec::with_capacity(cluster.nodes().len());
    for (name, node) in cluster.nodes() {
        let known = objects.known.remove(name);
        let status = known.as_ref().and_then(|known| known.status.as_ref());
        let evidence: &[EvidenceEntry] = status.map_or(&[], |status| &status.evidence);
        let follows = known.as_ref().and_then(|known| known.spec.policy.as_deref());
        let mut report = scene.report(name, node, follows, evidence, now);
        if report.status.verdict == Verdict::Blocks.as_str()
            && let Some(pool) = node_pool::of(&node.labels)
        {
            pools.insert(name.clone(), pool.to_owned());
        }
        report.status.agent = status.and_then(|status| status.agent.clone());
        let (mut metadata, kept) = match known {
            Some(known) => (known.metadata, known.spec),
            None => {
                let name = Some(name.clone());
                (ObjectMeta { name, ..ObjectMeta::default() }, StreamingNodeSpec::default())
            }
        };
        metadata.managed_fields = None;
        let spec = report.spec.unwrap_or(kept);
        nodes.push(StreamingNode { metadata, spec, status: Some(report.status) });
    }
    // Steps that leave out what could not be read would be taken for all.
    let upgrade = options.target.filter(|_| doubts.is_none()).map(|target| {
        let mut steps = cluster.upgrade_steps(&chosen, now);
        if !steps.is_empty() {
            let first = rights.as_ref().map(rights_steps).unwrap_or_default();
            steps = together([first, steps]);
        }
        UpgradePlan { target, steps }
    });
    Ok(PlannedStatuses { policies, nodes, pools, rights, upgrade })
}

/// Why not everything was seen that counts; `None` where it was.
fn doubts(objects: &Objects) -> Option<String> {
    if !objects.unread.is_empty() {
        return Some(UNREAD.to_owned());
    }
    let hidden = objects.hidden.join(" and ");
    (!hidden.is_empty()).then(|| {
        format!(
            "Not all {hidden} of the cluster can be read, and any might stand in the way. Standard error \
             says why; let somebody plan who may read them."
        )
    })
}

/// Takes back what holds only of what could be read: any object beside it might be in the way.
fn doubt(status: &mut StreamingPolicyStatus, why: &str) {
    for condition in &mut status.conditions {
        let (status, reason) = match &*condition.type_ {
            // What is wrong is so whatever else there is.
            condition::DEGRADED | condition::RUNTIME_EXPOSED => continue,
            condition::PROGRESSING => ("False", "Refused"),
            _ if condition.status == "True" => ("Unknown", INPUT_UNREAD),
            _ => continue,
        };
        status.clone_into(&mut condition.status);
        reason.clone_into(&mut condition.reason);
        why.clone_into(&mut condition.message);
    }
    for upgrade in status.upgrades.iter_mut().filter(|upgrade| upgrade.safe) {
        upgrade.safe = false;
        upgrade.reasons = vec![INPUT_UNREAD.to_owned()];
        why.clone_into(&mut upgrade.message);
    }
}

/// Makes a cluster of the objects. The Nodes are taken out of them: there may be many.
fn cluster(objects: &mut Objects) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.watch_agents();
    for (node, ready) in &objects.agents {
        cluster.set_agent_ready(node, *ready);
    }
    for (name, known) in &objects.known {
        let agent = known.status.as_ref().and_then(|status| status.agent.as_deref());
        cluster.set_agent(name, agent);
    }
    for node in std::mem::take(&mut objects.nodes).into_values() {
        cluster.set_node(node);
    }
    for (name, object) in &objects.policies {
        cluster.set_policy(name.clone(), policy(object));
    }
    for (name, pod) in &objects.pods {
        cluster.set_pod(name.clone(), Some(pod.clone()));
    }
    cluster.set_endpoints(objects.endpoints.clone());
    cluster.set_served(objects.served);
    cluster
}

fn policy(object: &PolicyObject) -> Policy {
    let (metadata, content, status) = match object {
        PolicyObject::Readable(policy) => {
            (&policy.metadata, Ok(Content::read(&policy.spec)), policy.status.clone())
        }
        PolicyObject::Unreadable { metadata, why } => (&**metadata, Err(why.clone()), None),
    };
    Policy {
        uid: metadata.uid.clone().unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        generation: metadata.generation,
        content,
        status,
    }
}

/// The policy that the verdict is about.
fn chosen(cluster: &Cluster, options: &Options) -> Result<String, Error> {
    let policies = cluster.policies();
    if let Some(name) = &options.policy {
        let known = policies.contains_key(name);
        return known.then(|| name.clone()).ok_or_else(|| Error::NoPolicy(name.clone()));
    }
    match cluster.owner() {
        Owner::Policy(name) | Owner::Unreadable(name) => Ok(name.to_owned()),
        Owner::Nobody => {
            let first = policies.keys().next().cloned();
            first.ok_or_else(|| Error::NoPolicy(DEFAULT_POLICY.to_owned()))
        }
    }
}
