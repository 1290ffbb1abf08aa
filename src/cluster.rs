//! What is known of a cluster, and the statuses that follow from it.
//!
//! This is the edge between Kubernetes objects and [`crate::decision`]. The controller fills a
//! [`Cluster`] from watches, the command line from files or one look at the API; both get the same
//! statuses out of it.

mod agent;
mod agent_placement;
mod apiserver;
mod change;
mod node;
mod origin;
mod policy;
pub mod reasons;
mod report;
mod rights;
pub mod uninstall;
mod websockets;

use std::collections::{BTreeMap, BTreeSet};

use agent::Agent;
use jiff::Timestamp;

pub use agent::{AGENT_CONTAINER, AGENT_LABELS, AgentChange, AgentPod, distrusts, ready_nodes};
pub use agent_placement::{Agents, AgentsOwner, NodeAccess, Rollout, Running, SYSTEM, Selector};
pub use apiserver::{
    ApiserverPod, POD_FIELDS, endpoint_addresses, judged_gates, looks_like_apiserver,
};
pub use change::{Plans, Told, read as read_attempt, wish as change_wish};
pub use node::NodeView;
pub use origin::Origin;
pub use policy::{Content, DesiredOnNodes, Front, Policy};
pub use report::{Moment, NodeReport, NodeScene, Summary, seconds as whole_seconds};
pub use rights::{Added, RbacObject};
pub use websockets::NodeStreams;

use crate::{
    api::AgentReport,
    decision::{
        apiserver::Apiserver,
        change::{Attempt, Attempts},
        migration::STREAMING_REDIRECTS,
        proxy::Streams,
        redirects::{
            self, Judgement,
            evidence::{Claim, Source},
            node::NodeFacts,
            policy::{Owner, PolicyFacts},
        },
        steps::{self, Step},
    },
    kubernetes::version::Minor,
};

/// A node, as it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The Node's uid.
    pub uid: String,
    /// The kubelet's version, as it reports it.
    pub kubelet: String,
    /// The labels, for policies to select by.
    pub labels: BTreeMap<String, String>,
    /// Whether its kubelet is ready.
    pub ready: bool,
    /// Its machine.
    pub origin: Origin,
    /// What decisions take: the Node's own claims and the agent's.
    pub facts: NodeFacts,
    /// The same of its streams.
    pub streams: NodeStreams,
}

/// What is known of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, Node>,
    agents: BTreeMap<String, Agent>,
    agents_watched: bool,
    policies: BTreeMap<String, Policy>,
    pods: BTreeMap<String, ApiserverPod>,
    endpoints: Option<BTreeSet<String>>,
    served: Option<Minor>,
    instances: Vec<Apiserver>,
    lost: Option<&'static str>,
    attempts: Attempts,
    /// The same as they are stored, whatever machine says so.
    stored: BTreeMap<String, (Attempt, Origin)>,
}

impl Cluster {
    /// Takes a node; `true` if anything that matters has changed.
    pub fn set_node(&mut self, view: NodeView) -> bool {
        let Some(name) = view.metadata.name.clone() else { return false };
        let mut claims = view.claims();
        let kubelet = Minor::running(&view.kubelet_version).ok();
        let mut streams = NodeStreams::of(&view, kubelet);
        let uid = view.metadata.uid.unwrap_or_default();
        if self.nodes.get(&name).is_some_and(|known| known.uid != uid) {
            self.agents.get_mut(&name).into_iter().for_each(Agent::outlive);
        }
        claims.extend(self.agent_claims(&name, &view.origin));
        claims.sort();
        let agent = self.agents.get(&name);
        let crashes = agent.is_some_and(|agent| agent.crashes && agent.is_of(&view.origin));
        let vouched = |agent: &Agent| self.vouches(agent, &view.origin);
        streams
            .hear(agent.map(|a| a.said_of_streams(vouched(a), &view.origin)).unwrap_or_default());
        let node = Node {
            uid,
            ready: view.ready,
            origin: view.origin,
            facts: NodeFacts {
                kubelet,
                provider: view.provider.filter(|_| kubelet.is_none()),
                claims,
                files: agent.map(|agent| agent.files.clone()).unwrap_or_default(),
                distrusted: agent.is_some_and(|agent| agent.distrusted),
                crashes,
            },
            streams,
            kubelet: view.kubelet_version,
            labels: view.metadata.labels.unwrap_or_default(),
        };
        if self.nodes.get(&name) == Some(&node) {
            return false;
        }
        self.nodes.insert(name.clone(), node);
        self.bind_attempt(&name);
        true
    }

    /// Forgets a node; `true` if it was known.
    pub fn remove_node(&mut self, name: &str) -> bool {
        self.agents.get_mut(name).into_iter().for_each(Agent::outlive);
        self.nodes.remove(name).is_some()
    }

    /// From now on the agents' pods are told of ([`Self::set_agent_ready`]), and only an agent whose
    /// pod is ready is believed that a flag is off. Without this, what is stored is believed.
    pub fn watch_agents(&mut self) {
        self.agents_watched = true;
    }

    /// Takes what a node's agent saw; tells what of it has changed.
    pub fn set_agent(&mut self, node: &str, report: Option<&AgentReport>) -> AgentChange {
        self.change_agent(node, |agent| agent.hear(report))
    }

    /// Takes whether the pod of a node's agent is there and ready; tells what changes with it.
    pub fn set_agent_ready(&mut self, node: &str, ready: bool) -> AgentChange {
        self.change_agent(node, |agent| agent.ready = ready)
    }

    /// Whether the pod of a node's agent was last said to be there and ready.
    pub fn agent_ready(&self, node: &str) -> bool {
        self.agents.get(node).is_some_and(|agent| agent.ready)
    }

    fn change_agent(&mut self, node: &str, change: impl FnOnce(&mut Agent)) -> AgentChange {
        let watched = self.agents_watched;
        let origin = self.nodes.get(node).map(|node| node.origin.clone()).unwrap_or_default();
        let vouched = |agent: &Agent| (agent.ready || !watched) && agent.is_of(&origin);
        let claims = |agent: &Agent| agent.claims(vouched(agent)).collect::<Vec<_>>();
        let exposed = |agent: &Agent| agent.exposed.clone().filter(|_| vouched(agent));
        // What an agent says that is not there is of no interest.
        let streams = |agent: &Agent| {
            let there = if watched { agent.ready } else { agent.reported };
            there.then(|| agent.streams.clone())
        };
        let agent = self.agents.entry(node.to_owned()).or_default();
        let before = agent.clone();
        change(agent);
        let heard = claims(agent);
        let of_streams = |agent: &Agent| agent.said_of_streams(vouched(agent), &origin);
        let streams_said = of_streams(agent);
        let said = |agent: &Agent| {
            let crashes = agent.crashes && agent.is_of(&origin);
            (agent.files.clone(), agent.distrusted, crashes)
        };
        let now = said(agent);
        let changed = AgentChange {
            evidence: claims(&before) != heard
                || said(&before) != now
                || of_streams(&before) != streams_said,
            proxy: streams(&before) != streams(agent) || exposed(&before) != exposed(agent),
        };
        if agent.is_unknown() {
            self.agents.remove(node);
        }
        if let Some(known) = self.nodes.get_mut(node).filter(|_| changed.evidence) {
            let all = &mut known.facts.claims;
            all.retain(|claim| !matches!(claim.source, Source::Agent | Source::EnvFiles));
            all.extend(heard);
            all.sort();
            (known.facts.files, known.facts.distrusted, known.facts.crashes) = now;
            known.streams.hear(streams_said);
        }
        changed
    }

    fn agent_claims(&self, node: &str, origin: &Origin) -> impl Iterator<Item = Claim> + '_ {
        let agent = self.agents.get(node);
        let vouched = agent.is_some_and(|agent| self.vouches(agent, origin));
        agent.into_iter().flat_map(move |agent| agent.claims(vouched))
    }

    /// Whether what an agent says is true now of the node from which it comes.
    fn vouches(&self, agent: &Agent, node: &Origin) -> bool {
        (agent.ready || !self.agents_watched) && agent.is_of(node)
    }

    /// Whether a node's agent is there, as far as anybody looks, and what it says of the streams.
    fn agent_streams(&self, node: &str) -> (bool, &Streams) {
        const UNTOLD: &Streams = &Streams::Untold;
        match self.agents.get(node) {
            Some(agent) if self.agents_watched => (agent.ready, &agent.streams),
            Some(agent) => (agent.reported, &agent.streams),
            None => (false, UNTOLD),
        }
    }

    /// Takes a policy; `true` if anything but its status has changed.
    pub fn set_policy(&mut self, name: String, policy: Policy) -> bool {
        let same = |old: &Policy| {
            (&old.uid, old.created, old.generation, &old.content)
                == (&policy.uid, policy.created, policy.generation, &policy.content)
        };
        let changed = !self.policies.get(&name).is_some_and(same);
        self.policies.insert(name, policy);
        changed
    }

    /// Forgets a policy; `true` if it was known.
    pub fn remove_policy(&mut self, name: &str) -> bool {
        self.policies.remove(name).is_some()
    }

    /// Takes a pod that may be an apiserver's; `true` if the apiservers have changed.
    pub fn set_pod(&mut self, name: String, pod: Option<ApiserverPod>) -> bool {
        match pod {
            Some(pod) => self.pods.insert(name, pod),
            None => self.pods.remove(&name),
        };
        self.refresh_instances()
    }

    /// The nodes whose apiserver's pod is ready.
    pub fn ready_apiservers(&self) -> BTreeSet<String> {
        let ready = self.pods.values().filter(|pod| pod.is_ready());
        ready.map(|pod| pod.node().to_owned()).collect()
    }

    /// Takes who answers for the `kubernetes` Service; `true` if the apiservers have changed.
    pub fn set_endpoints(&mut self, endpoints: Option<BTreeSet<String>>) -> bool {
        self.endpoints = endpoints;
        self.refresh_instances()
    }

    /// Takes the version that an apiserver reported of itself; `true` if the apiservers have
    /// changed.
    pub fn set_served(&mut self, served: Option<Minor>) -> bool {
        self.served = served;
        self.refresh_instances()
    }

    /// Takes instances that somebody describes in words instead of pods.
    pub fn set_instances(&mut self, instances: Vec<Apiserver>) {
        self.instances = instances;
    }

    /// Takes what a node's change has come to, as it is stored, and the machine that says so; `true` if
    /// that is something else than before.
    pub fn set_attempt(&mut self, node: &str, stored: Option<(Attempt, Origin)>) -> bool {
        match stored {
            Some(stored) => self.stored.insert(node.to_owned(), stored),
            None => self.stored.remove(node),
        };
        self.bind_attempt(node)
    }

    /// What a remediator said on another machine, or before the machine's last start, has to be
    /// said again.
    fn bind_attempt(&mut self, node: &str) -> bool {
        let known = self.nodes.get(node);
        let bound = self.stored.get(node).map(|(attempt, origin)| {
            match known.is_none_or(|known| origin.is(&known.origin)) {
                true => attempt.clone(),
                false => attempt.unanswered(),
            }
        });
        let before = match bound.clone() {
            Some(bound) => self.attempts.insert(node.to_owned(), bound),
            None => self.attempts.remove(node),
        };
        before != bound
    }

    /// The changes of all nodes.
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Says that a kind of object can no longer be watched, or can again; `true` on a change.
    pub fn set_lost(&mut self, kind: Option<&'static str>) -> bool {
        std::mem::replace(&mut self.lost, kind) != kind
    }

    fn refresh_instances(&mut self) -> bool {
        let now = apiserver::instances(self.pods.values(), self.endpoints.as_ref(), self.served);
        let changed = self.instances != now;
        self.instances = now;
        changed
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The policies, by name.
    pub fn policies(&self) -> &BTreeMap<String, Policy> {
        &self.policies
    }

    /// The names of the mirror pods that are known.
    pub fn pods(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// The apiservers, by name.
    pub fn instances(&self) -> &[Apiserver] {
        &self.instances
    }

    /// The version that an apiserver reported of itself.
    pub fn served(&self) -> Option<Minor> {
        self.served
    }

    /// The readable policies that want something on nodes, in the order in which they are heard about
    /// streams: those that ask for something about them, oldest first, then those that only want
    /// their flags away.
    fn wishes(&self) -> Vec<(&str, &Content)> {
        let mut wishes = self.by_age();
        wishes.sort_by_key(|(_, content)| !content.streams);
        wishes
    }

    /// The readable policies that want kubelets to lose their flag, oldest first. Each node is the
    /// concern of the first that selects it, whoever is heard about its streams.
    fn remediating(&self) -> Vec<(&str, &Content)> {
        let mut wishes = self.by_age();
        wishes.retain(|(_, content)| content.facts.remediation.is_some());
        wishes
    }

    /// The readable policies that want something on nodes, oldest first.
    fn by_age(&self) -> Vec<(&str, &Content)> {
        let contents = self.policies.iter().filter_map(|(name, policy)| {
            let content = policy.content.as_ref().ok()?;
            (content.wish != DesiredOnNodes::Nothing).then_some((
                policy.created,
                name.as_str(),
                content,
            ))
        });
        let mut wishes: Vec<_> = contents.collect();
        wishes.sort_by_key(|(created, name, _)| (created.is_none(), *created, *name));
        wishes.into_iter().map(|(_, name, content)| (name, content)).collect()
    }

    /// Whether any policy wants something on nodes.
    pub fn has_wishes(&self) -> bool {
        let mut contents = self.policies.values().filter_map(|policy| policy.content.as_ref().ok());
        contents.any(|content| content.wish != DesiredOnNodes::Nothing)
    }

    /// Who decides about the gate.
    pub fn owner(&self) -> Owner<'_> {
        let claimants = self.policies.iter().map(|(name, policy)| policy.claimant(name));
        redirects::policy::owner(claimants)
    }

    /// The facts of the policy that owns the gate.
    pub fn owner_facts(&self) -> Option<&PolicyFacts> {
        let Owner::Policy(name) = self.owner() else { return None };
        self.policies.get(name)?.content.as_ref().ok().map(|content| &content.facts)
    }

    /// The next moment after `now` at which time alone changes a judgement.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let contents = self.policies.values().filter_map(|policy| policy.content.as_ref().ok());
        contents.filter_map(|content| content.facts.next_expiry(now)).min()
    }

    /// What has to be done before the upgrade to a policy's target version; nothing where it has
    /// none.
    pub fn upgrade_steps(&self, policy: &str, now: Timestamp) -> Vec<Step> {
        let content = self.policies.get(policy).and_then(|policy| policy.content.as_ref().ok());
        let Some(Content { facts, .. }) = content else { return Vec::new() };
        let nodes = self.nodes.iter().map(|(name, node)| (name.as_str(), &node.facts));
        let (migration, owner) = (&STREAMING_REDIRECTS, self.owner());
        let redirects =
            redirects::steps::steps(migration, facts, policy, owner, &self.instances, nodes, now);
        steps::together([redirects, self.websocket_steps(policy, now)])
    }

    /// Judges the cluster for one policy.
    fn judge<'a>(&'a self, name: &str, facts: &PolicyFacts, now: Timestamp) -> Judgement<'a> {
        let nodes = self.nodes.iter().map(|(name, node)| (name.as_str(), &node.facts));
        let (migration, owner) = (&STREAMING_REDIRECTS, self.owner());
        redirects::judge(migration, facts, name, owner, &self.instances, nodes, now)
    }
}
