//! Do the streams of the nodes that a policy selects pass through their agents? The words of
//! `ProxyReady`.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    condition::{ConditionOutcome, ConditionStatus},
    names::{NameSummary, SHOWN},
};

/// So many characters of an agent's own words are repeated.
const QUOTED: usize = 300;

/// What becomes of a node's streams, as its agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// It does not say.
    #[default]
    Untold,
    /// They pass through it.
    Relayed,
    /// They do not.
    NotRelayed(Box<Trouble>),
}

/// Why streams do not pass through an agent, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// They are refused, rather than led past it.
    pub refused: bool,
    /// The agent's reason; may be empty.
    pub reason: String,
    /// The agent's message; may be empty.
    pub message: String,
}

/// What a policy wants of the nodes that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesiredStreams {
    /// Their streams pass through the agent.
    Streams,
    /// The agent only tells how the kubelet is set.
    Evidence,
    /// They keep what they have: the policy is paused.
    Paused,
    /// They keep what they have: what the policy asks for cannot be taken.
    Invalid,
}

/// A node that a policy selects.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    /// Its name.
    pub node: &'a str,
    /// Whether an agent can run there; other nodes are none of a proxy's concern.
    pub possible: bool,
    /// The older policy that it follows instead.
    pub follows: Option<&'a str>,
    /// Whether its agent is there and ready.
    pub ready: bool,
    /// What its agent says of its streams.
    pub streams: &'a Streams,
}

/// `ProxyReady`: what a policy's proxy asks for is done on every node that it selects.
///
/// `unreadable` is an older policy that cannot be read: nodes that followed it still do. The worst
/// reason wins, and every problem is in the message.
pub fn proxy_ready<'a>(
    wanted: DesiredStreams,
    nodes: impl IntoIterator<Item = Selected<'a>>,
    unreadable: Option<&str>,
) -> ConditionOutcome {
    match wanted {
        DesiredStreams::Paused => {
            return no("Paused", "The policy is paused; the nodes keep what they have.".to_owned());
        }
        DesiredStreams::Invalid => {
            let message = "What the policy asks for cannot be taken, as the condition Degraded \
                           says; the nodes keep what they have.";
            return no("SpecInvalid", message.to_owned());
        }
        DesiredStreams::Streams | DesiredStreams::Evidence => {}
    }
    let seen = SelectedNodes::of(wanted, nodes);
    if seen.selected == 0 {
        let selects = match seen.impossible {
            0 => "no node",
            _ => "only nodes of another system than Linux, on which no agent can run",
        };
        let message = format!(
            "The policy's nodeSelector selects {selects}. Look at the labels of the Nodes."
        );
        return no("NoNodesSelected", message);
    }
    let problems: Vec<(&'static str, String)> = [
        seen.not_ready(),
        seen.not_relayed(),
        seen.older(),
        unreadable.map(|other| {
            let message = format!(
                "StreamingPolicy {other} is older and cannot be read: nodes that follow it keep \
                 what it wanted. Mend or delete it."
            );
            (OLDER, message)
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    match (problems.first(), wanted) {
        (Some((reason, _)), _) => {
            let reason = *reason;
            let all: Vec<String> = problems.into_iter().map(|(_, message)| message).collect();
            no(reason, all.join(" "))
        }
        (None, DesiredStreams::Streams) => {
            let message = format!("The streams of {} pass through the agent.", seen.all());
            ConditionOutcome::new(ConditionStatus::True, "Relaying", message)
        }
        (None, _) => {
            let message = format!(
                "The agent on {} tells how the kubelet is set, and leaves streams alone.",
                seen.all()
            );
            ConditionOutcome::new(ConditionStatus::True, "EvidenceOnly", message)
        }
    }
}

const OLDER: &str = "OlderPolicyFollowed";

fn no(reason: &'static str, message: String) -> ConditionOutcome {
    ConditionOutcome::new(ConditionStatus::False, reason, message)
}

/// All selected nodes in one pass.
#[derive(Debug, Default)]
struct SelectedNodes<'a> {
    selected: usize,
    /// Selected, too, but of another system than Linux.
    impossible: usize,
    not_ready: NameSummary<'a>,
    not_relayed: NameSummary<'a>,
    /// The node whose trouble is told: one that refuses before one that does not, then by name.
    worst: Option<(Reverse<bool>, &'a str, &'a Streams)>,
    older: BTreeMap<&'a str, NameSummary<'a>>,
}

impl<'a> SelectedNodes<'a> {
    fn of(wanted: DesiredStreams, nodes: impl IntoIterator<Item = Selected<'a>>) -> Self {
        let mut seen = Self::default();
        for Selected { node, possible, follows, ready, streams } in nodes {
            if !possible {
                seen.impossible += 1;
                continue;
            }
            seen.selected += 1;
            if let Some(policy) = follows {
                seen.older.entry(policy).or_default().add(node);
            } else if !ready {
                seen.not_ready.add(node);
            } else if wanted == DesiredStreams::Streams && *streams != Streams::Relayed {
                seen.not_relayed.add(node);
                let refused = matches!(streams, Streams::NotRelayed(why) if why.refused);
                let this = (Reverse(refused), node);
                if seen.worst.is_none_or(|(refused, name, _)| this < (refused, name)) {
                    seen.worst = Some((this.0, node, streams));
                }
            }
        }
        seen
    }

    fn all(&self) -> String {
        let linux = if self.impossible == 0 { "" } else { "Linux " };
        match self.selected {
            1 => format!("the only selected {linux}node"),
            n => format!("all {n} selected {linux}nodes"),
        }
    }

    fn not_ready(&self) -> Option<(&'static str, String)> {
        let nodes = &self.not_ready;
        (!nodes.is_empty()).then(|| {
            let message = format!(
                "No agent is ready on {nodes}. Look at the agent's pod and its log there, or, where \
                 there is no pod, at the events of the agents' DaemonSet: Pod Security may keep \
                 them out. A Node without the label kubernetes.io/os gets no agent. While one starts, \
                 wait."
            );
            ("AgentsNotReady", message)
        })
    }

    fn not_relayed(&self) -> Option<(&'static str, String)> {
        let (_, node, streams) = self.worst?;
        let why = match streams {
            Streams::NotRelayed(why) => why.in_words(),
            Streams::Untold | Streams::Relayed => "the agent has not said why yet.".to_owned(),
        };
        let message = format!(
            "The streams of {} do not pass through the agent. {node}: {why} The log of the agent's \
             pod there says more.",
            self.not_relayed
        );
        Some(("NodesNotRelayed", message))
    }

    fn older(&self) -> Option<(&'static str, String)> {
        let followed: Vec<String> = self
            .older
            .iter()
            .take(SHOWN)
            .map(|(policy, nodes)| {
                format!("{nodes} follow{} StreamingPolicy {policy}", nodes.verb_s())
            })
            .collect();
        let more = match self.older.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!("; {n} more policies are followed, too"),
        };
        (!followed.is_empty()).then(|| {
            let message = format!(
                "{}{more}: of several policies that select a node the oldest is heard. Narrow its \
                 nodeSelector, or delete it.",
                followed.join(", ")
            );
            (OLDER, message)
        })
    }
}

impl Trouble {
    fn in_words(&self) -> String {
        let words = match (self.message.trim(), self.reason.trim()) {
            ("", "") => "the agent does not say why.",
            ("", reason) => reason,
            (message, _) => message,
        };
        let mut words: String = words.chars().take(QUOTED).collect();
        if !words.ends_with('.') {
            words.push('.');
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAYED: Streams = Streams::Relayed;
    const UNTOLD: Streams = Streams::Untold;

    fn trouble(refused: bool, reason: &str, message: &str) -> Streams {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Streams::NotRelayed(Box::new(Trouble { refused, reason, message }))
    }

    fn ready<'a>(node: &'a str, streams: &'a Streams) -> Selected<'a> {
        Selected { node, possible: true, follows: None, ready: true, streams }
    }

    fn absent(node: &str) -> Selected<'_> {
        Selected { node, possible: true, follows: None, ready: false, streams: &UNTOLD }
    }

    fn older<'a>(node: &'a str, policy: &'a str) -> Selected<'a> {
        Selected { node, possible: true, follows: Some(policy), ready: true, streams: &RELAYED }
    }

    fn windows(node: &str) -> Selected<'_> {
        Selected { possible: false, ..absent(node) }
    }

    #[test]
    fn every_reason_names_somebody_and_says_what_to_do() {
        let direct = trouble(false, "RuntimeUnreachable", "The runtime does not answer.");
        let refused = trouble(true, "RelayBroken", "The relay hangs");
        let wordless = trouble(false, "", "");
        for (wanted, nodes, unreadable, reason, words) in [
            (DesiredStreams::Streams, vec![ready("a", &RELAYED)], None, "Relaying", &["only"][..]),
            (
                DesiredStreams::Streams,
                vec![ready("a", &RELAYED), ready("b", &RELAYED)],
                None,
                "Relaying",
                &["all 2 selected nodes"],
            ),
            (
                DesiredStreams::Streams,
                vec![windows("w"), ready("a", &RELAYED), ready("b", &RELAYED)],
                None,
                "Relaying",
                &["all 2 selected Linux nodes"],
            ),
            (DesiredStreams::Evidence, vec![windows("w")], None, "NoNodesSelected", &["Linux"]),
            // The agent need not say anything of streams that it leaves alone.
            (DesiredStreams::Evidence, vec![ready("a", &UNTOLD)], None, "EvidenceOnly", &["alone"]),
            (
                DesiredStreams::Evidence,
                vec![absent("a")],
                None,
                "AgentsNotReady",
                &["a.", "Look at"],
            ),
            (
                DesiredStreams::Streams,
                vec![ready("c", &wordless), ready("b", &direct), ready("a", &RELAYED)],
                None,
                "NodesNotRelayed",
                &["streams of b and c do not", "b: The runtime does not answer. The log"],
            ),
            (
                DesiredStreams::Streams,
                vec![ready("b", &direct), ready("c", &refused), ready("d", &UNTOLD)],
                None,
                "NodesNotRelayed",
                &["b, c and d", "c: The relay hangs. The log"],
            ),
            (
                DesiredStreams::Streams,
                vec![ready("a", &UNTOLD)],
                None,
                "NodesNotRelayed",
                &["not said why"],
            ),
            // The worst first, and the others beside it.
            (
                DesiredStreams::Streams,
                vec![older("d", "first"), ready("b", &direct), absent("a")],
                None,
                "AgentsNotReady",
                &["on a.", "streams of b", "d follows StreamingPolicy first", "nodeSelector"],
            ),
            (
                DesiredStreams::Streams,
                vec![older("d", "first"), older("e", "first"), ready("b", &RELAYED)],
                None,
                "OlderPolicyFollowed",
                &["d and e follow StreamingPolicy first", "the oldest is heard"],
            ),
            (
                DesiredStreams::Streams,
                vec![ready("a", &RELAYED)],
                Some("broken"),
                "OlderPolicyFollowed",
                &["StreamingPolicy broken", "Mend or delete"],
            ),
            (
                DesiredStreams::Streams,
                vec![],
                None,
                "NoNodesSelected",
                &["nodeSelector", "Look at"],
            ),
            (DesiredStreams::Paused, vec![absent("a")], None, "Paused", &["paused"]),
            (DesiredStreams::Invalid, vec![absent("a")], None, "SpecInvalid", &["Degraded"]),
        ] {
            let outcome = proxy_ready(wanted, nodes.clone(), unreadable);
            let holds = matches!(reason, "Relaying" | "EvidenceOnly");
            assert_eq!((outcome.status == ConditionStatus::True, outcome.reason), (holds, reason));
            for word in words {
                assert!(outcome.message.contains(word), "no {word:?}: {}", outcome.message);
            }
            let turned = proxy_ready(wanted, nodes.into_iter().rev(), unreadable);
            assert_eq!(outcome, turned, "the order of nodes does not matter");
        }
    }

    #[test]
    fn the_message_does_not_grow_with_the_cluster() {
        let long = trouble(false, "R", &"x".repeat(5_000));
        let of = |count: usize| {
            let names: Vec<String> = (0..count).map(|i| format!("node-{i:05}")).collect();
            let policies: Vec<String> = (0..count).map(|i| format!("policy-{i:05}")).collect();
            let nodes = names.iter().zip(&policies).enumerate().map(|(i, (node, policy))| {
                [absent(node), ready(node, &long), older(node, policy)][i % 3]
            });
            proxy_ready(DesiredStreams::Streams, nodes, Some("broken")).message.len()
        };
        assert!(of(9_000) < of(30) + 30, "{} and {}", of(30), of(9_000));
    }
}
