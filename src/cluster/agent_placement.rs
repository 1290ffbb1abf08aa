//! Where agents are wanted, from what all policies together say.

use std::collections::BTreeMap;

use super::{Cluster, DesiredOnNodes, Policy};

/// The labels by which a policy selects nodes; none of them selects every node.
pub type Selector = BTreeMap<String, String>;

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
}

impl Cluster {
    /// Where agents are wanted, beside those that are there.
    ///
    /// A policy that is paused, or that cannot be taken or read, holds what it once asked for, and
    /// nobody knows any more which of the agents that was for: while one owns the agents, none of
    /// them goes away. It brings no new ones.
    pub fn rollout(&self, running: Option<&Running>) -> Rollout {
        // Agents whose owners somebody has taken away may be any policy's.
        let holds = |policy: &Policy| {
            let owners = running.map(|running| &running.owners);
            owners.is_some_and(|uids| uids.is_empty() || uids.contains(&policy.uid))
        };
        let mut agents = Agents::default();
        let mut held = false;
        for (name, policy) in &self.policies {
            match policy.content.as_ref().map(|content| (&content.wish, &content.selector)) {
                Ok((DesiredOnNodes::Proxy(_), selector)) => agents.selectors.push(selector.clone()),
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
        Rollout::On(Agents { selectors: selectors.collect(), owners: owners.collect() })
    }

    #[test]
    fn agents_are_wanted_where_any_policy_wants_them() {
        let none = json!({"streamingProxyRedirects": "Disabled"});
        let in_zone = |zone| json!({"nodeSelector": {"zone": zone}, "proxy": {}});
        let everywhere = json!({"proxy": {"mode": "Disabled"}});
        for (policies, expected) in [
            (vec![], Rollout::Nothing),
            (vec![("a", none.clone())], Rollout::Nothing),
            (vec![("a", everywhere.clone())], on(&[""], &["a"])),
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
