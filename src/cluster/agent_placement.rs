//! Where agents are wanted, from what all policies together say.

use std::collections::BTreeMap;

use super::{Cluster, Content, DesiredOnNodes, Policy};
use crate::api::{Proxy, ProxyMode};

/// The labels by which a policy selects nodes; none of them selects every node.
pub type Selector = BTreeMap<String, String>;

/// The label in which every kubelet since 1.14 says what its node runs, and what an agent needs there.
pub const SYSTEM: (&str, &str) = ("kubernetes.io/os", "linux");

/// Whether an agent can run on a node with these labels. One that does not say is not excused: it
/// gets no agent, and counts as a node whose agent is missing.
pub fn can_have_agent(labels: &BTreeMap<String, String>) -> bool {
    let (label, linux) = SYSTEM;
    labels.get(label).is_none_or(|system| system == linux)
}

/// What is wanted of the agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// No policy wants any.
    Nothing,
    /// What is there stays as it is, if anything is.
    AsIs,
    /// They are wanted on some nodes.
    On(Agents),
}

/// Where agents are wanted, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents {
    /// A node that one of these selects gets an agent. Sorted, without duplicates; the empty one
    /// stands alone.
    pub selectors: Vec<Selector>,
    /// The policies that want them, by name.
    pub owners: Vec<AgentsOwner>,
    /// What they need of their nodes.
    pub access: NodeAccess,
}

/// What agents may touch on their nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeAccess {
    /// What their kubelets are started with: enough for a policy that only wants to know.
    #[default]
    Evidence,
    /// Also the runtime's socket and the kernel's rules: to carry streams, and to tell whether a kubelet
    /// that loses its flag could reach the runtime.
    Streams,
}

/// A policy for which agents are there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentsOwner {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The agents that are there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where; `None` where that cannot be read.
    pub selectors: Option<Vec<Selector>>,
    /// The uids of the policies that own them.
    pub owners: Vec<String>,
    /// What they may touch.
    pub access: NodeAccess,
}

impl Cluster {
    /// Where agents are wanted, beside those that are there.
    ///
    /// A policy that is paused, or that cannot be taken or read, holds what it once asked for, and
    /// nobody knows any more which of the agents that was for: while one owns the agents, none of
    /// them goes away. It brings no new ones.
    ///
    /// What agents may touch grows, and shrinks only with new agents: rules that refuse streams in the
    /// place of one that has died can be taken away only by one that may touch them.
    pub fn rollout(&self, running: Option<&Running>) -> Rollout {
        // Agents whose owners somebody has taken away may be any policy's.
        let holds = |policy: &Policy| {
            let owners = running.map(|running| &running.owners);
            owners.is_some_and(|uids| uids.is_empty() || uids.contains(&policy.uid))
        };
        let access = running.map(|running| running.access).unwrap_or_default();
        let mut agents = Agents { access, ..Agents::default() };
        let mut held = false;
        for (name, policy) in &self.policies {
            match policy.content.as_ref().map(|content| (&content.wish, content)) {
                Ok((DesiredOnNodes::Proxy(proxy), content)) => {
                    agents.selectors.push(content.selector.clone());
                    agents.access = agents.access.max(access_for(proxy, content));
                }
                Ok((DesiredOnNodes::Keep, _)) | Err(_) if holds(policy) => held = true,
                Ok(_) | Err(_) => continue,
            }
            agents.owners.push(AgentsOwner { name: name.clone(), uid: policy.uid.clone() });
        }
        if let Some(running) = running.filter(|_| held) {
            match &running.selectors {
                Some(there) => agents.selectors.extend(there.iter().cloned()),
                None => return Rollout::AsIs,
            }
        }
        if agents.selectors.is_empty() {
            return Rollout::Nothing;
        }
        agents.selectors = normal(agents.selectors);
        Rollout::On(agents)
    }
}

/// What a policy needs of its nodes.
fn access_for(proxy: &Proxy, content: &Content) -> NodeAccess {
    match (proxy.mode, content.facts.remediation) {
        (ProxyMode::Disabled, None) => NodeAccess::Evidence,
        (ProxyMode::Streams, _) | (ProxyMode::Disabled, Some(_)) => NodeAccess::Streams,
    }
}

/// The same selectors in the one form that compares.
fn normal(mut selectors: Vec<Selector>) -> Vec<Selector> {
    if selectors.iter().any(BTreeMap::is_empty) {
        return vec![Selector::new()];
    }
    selectors.sort();
    selectors.dedup();
    selectors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Content;

    /// Policies by name, each with a spec; null is one that cannot be read.
    fn cluster(policies: &[(&str, serde_json::Value)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (name, spec) in policies {
            let content = serde_json::from_value(spec.clone()).map(|spec| Content::read(&spec));
            let policy = Policy {
                uid: format!("uid-of-{name}"),
                created: None,
                generation: None,
                content: content.map_err(|error| error.to_string()),
                status: None,
            };
            cluster.set_policy((*name).to_owned(), policy);
        }
        cluster
    }

    fn selector(zone: &str) -> Selector {
        Selector::from([("zone".to_owned(), zone.to_owned())])
    }

    /// Agents in these zones; an empty name is every node.
    fn on(zones: &[&str], owners: &[&str]) -> Rollout {
        let zones = zones.iter();
        let selectors =
            zones.map(|zone| if zone.is_empty() { Selector::new() } else { selector(zone) });
        let owners = owners.iter();
        let owners = owners
            .map(|name| AgentsOwner { name: (*name).to_owned(), uid: format!("uid-of-{name}") });
        let access = NodeAccess::Streams;
        Rollout::On(Agents { selectors: selectors.collect(), owners: owners.collect(), access })
    }

    /// The same for agents that only look.
    fn looking_on(zones: &[&str], owners: &[&str]) -> Rollout {
        match on(zones, owners) {
            Rollout::On(agents) => Rollout::On(Agents { access: NodeAccess::Evidence, ..agents }),
            other => other,
        }
    }

    #[test]
    fn only_a_node_that_says_another_system_is_excused() {
        let labels = |system: &str| BTreeMap::from([(SYSTEM.0.to_owned(), system.to_owned())]);
        assert!(can_have_agent(&labels("linux")) && can_have_agent(&BTreeMap::new()));
        assert!(!can_have_agent(&labels("windows")));
    }

    #[test]
    fn agents_are_wanted_where_any_policy_wants_them() {
        let none = json!({"streamingProxyRedirects": "Disabled"});
        let in_zone = |zone| json!({"nodeSelector": {"zone": zone}, "proxy": {}});
        let everywhere = json!({"proxy": {"mode": "Disabled"}});
        for (policies, expected) in [
            (vec![], Rollout::Nothing),
            (vec![("a", none.clone())], Rollout::Nothing),
            (vec![("a", everywhere.clone())], looking_on(&[""], &["a"])),
            (vec![("a", in_zone("z")), ("b", none)], on(&["z"], &["a"])),
            (
                vec![("a", in_zone("z")), ("b", in_zone("y")), ("c", in_zone("z"))],
                on(&["y", "z"], &["a", "b", "c"]),
            ),
            (vec![("a", in_zone("z")), ("b", everywhere)], on(&[""], &["a", "b"])),
        ] {
            assert_eq!(cluster(&policies).rollout(None), expected, "{policies:?}");
        }
    }

    #[test]
    fn agents_may_touch_what_some_policy_needs_and_keep_it() {
        let evidence = json!({"proxy": {"mode": "Disabled"}});
        let remediation = json!({"nodes": {"remediation": "KubeletFlag"}});
        let running = |access| Running {
            selectors: Some(vec![Selector::new()]),
            owners: vec!["uid-of-a".to_owned()],
            access,
        };
        let (look, touch) = (running(NodeAccess::Evidence), running(NodeAccess::Streams));
        for (policies, running, expected) in [
            (vec![evidence.clone()], None, NodeAccess::Evidence),
            (vec![evidence.clone()], Some(&look), NodeAccess::Evidence),
            (vec![evidence.clone()], Some(&touch), NodeAccess::Streams),
            (vec![evidence.clone(), remediation], Some(&look), NodeAccess::Streams),
            (vec![evidence, json!({"proxy": {}})], None, NodeAccess::Streams),
            (vec![json!({"paused": true, "proxy": {}})], Some(&look), NodeAccess::Evidence),
            (vec![json!({"paused": true, "proxy": {}})], Some(&touch), NodeAccess::Streams),
        ] {
            let named: Vec<_> = ["a", "b"].into_iter().zip(policies).collect();
            let Rollout::On(agents) = cluster(&named).rollout(running) else {
                panic!("no agents: {named:?}")
            };
            assert_eq!(agents.access, expected, "{named:?} beside {running:?}");
        }
    }

    #[test]
    fn what_a_policy_holds_does_not_shrink_and_does_not_grow_with_it() {
        let in_zone = |zone| json!({"nodeSelector": {"zone": zone}, "proxy": {}});
        let mut paused = in_zone("z");
        paused["paused"] = json!(true);
        let mut refused = in_zone("z");
        refused["proxy"]["maxNodeBytesPerSec"] = json!("1");
        let gone = json!({"paused": true});
        let running = |zones: &[&str], owners: &[&str]| Running {
            selectors: Some(zones.iter().map(|zone| selector(zone)).collect()),
            owners: owners.iter().map(|name| format!("uid-of-{name}")).collect(),
            access: NodeAccess::Streams,
        };
        let there = running(&["x", "y"], &["a", "b"]);
        for kept in [paused.clone(), refused, json!({"proxy": "none"})] {
            for (policies, running, expected) in [
                // It asked for x once, or for y: both stay.
                (vec![("a", kept.clone())], Some(&there), on(&["x", "y"], &["a"])),
                (
                    vec![("a", kept.clone()), ("b", in_zone("w"))],
                    Some(&there),
                    on(&["w", "x", "y"], &["a", "b"]),
                ),
                // It never had any, so it holds none.
                (vec![("c", kept.clone())], Some(&there), Rollout::Nothing),
                (vec![("a", in_zone("y")), ("c", kept.clone())], Some(&there), on(&["y"], &["a"])),
                (vec![("a", kept.clone())], None, Rollout::Nothing),
                // Whose they are has been taken away, or where.
                (
                    vec![("c", kept.clone())],
                    Some(&Running { owners: vec![], ..there.clone() }),
                    on(&["x", "y"], &["c"]),
                ),
                (
                    vec![("a", kept.clone())],
                    Some(&Running { selectors: None, ..there.clone() }),
                    Rollout::AsIs,
                ),
            ] {
                let rollout = cluster(&policies).rollout(running);
                assert_eq!(rollout, expected, "{policies:?} beside {running:?}");
            }
        }
        assert_eq!(cluster(&[("a", gone)]).rollout(Some(&there)), Rollout::Nothing);
    }
}
