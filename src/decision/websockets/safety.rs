//! Whether WebSockets survive an upgrade, and whether they work now: the words of a policy's
//! condition `WebSocketsSafe`.

use std::collections::BTreeMap;

use super::{
    cliffs::Cliff,
    gates::{ALL_ALPHA, ALL_BETA, PLANNED, StreamGate},
    node::{StreamingUrl, Teller},
    survey::{Concern, Seen, Surveyed, look, of_apiserver},
};
use crate::{
    decision::{
        apiserver::Apiserver,
        condition::{ConditionOutcome, ConditionStatus},
        names::NameSummary,
    },
    kubernetes::version::Minor,
};

/// From this minor of an apiserver on the migration is near.
pub const NEAR: Minor = Minor(34);

/// How a person, or an agent, says with which URL a node's runtime answers a stream.
pub const URL_ANNOTATION: &str = "sluice.dev/streaming-url";

/// How a person says which of the gates of streams a node's kubelet is set to.
pub const GATES_ANNOTATION: &str = "sluice.dev/streaming-gates";

/// Why WebSockets are not safe, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebSocketReason {
    /// Exec and attach fail on nodes now.
    WebSocketsFail,
    /// An apiserver does not start there with a gate that it is set to.
    ApiserverRefusesGate,
    /// A kubelet does not start there with a gate that it is set to.
    KubeletRefusesGate,
    /// Runtimes answer with a URL without a scheme, and exec and attach fail there.
    RuntimeUrlSchemeless,
    /// Nobody knows with which URL runtimes answer, and exec and attach may fail there.
    RuntimeUrlUnknown,
    /// Nodes declare what their kubelet does not do.
    DeclarationContradicts,
    /// An apiserver's gates cannot be seen, and may keep it from starting.
    ApiserverUnknown,
    /// A kubelet's gates cannot be seen, and may keep it from starting.
    KubeletGatesUnknown,
    /// A gate bars the way back to the minor before. A warning.
    GateBarsWayBack,
}

impl WebSocketReason {
    /// Every reason, worst first.
    pub const ALL: [Self; 9] = [
        Self::WebSocketsFail,
        Self::ApiserverRefusesGate,
        Self::KubeletRefusesGate,
        Self::RuntimeUrlSchemeless,
        Self::RuntimeUrlUnknown,
        Self::DeclarationContradicts,
        Self::ApiserverUnknown,
        Self::KubeletGatesUnknown,
        Self::GateBarsWayBack,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocketsFail => "WebSocketsFail",
            Self::ApiserverRefusesGate => "ApiserverRefusesGate",
            Self::KubeletRefusesGate => "KubeletRefusesGate",
            Self::RuntimeUrlSchemeless => "RuntimeUrlSchemeless",
            Self::RuntimeUrlUnknown => "RuntimeUrlUnknown",
            Self::DeclarationContradicts => "DeclarationContradicts",
            Self::ApiserverUnknown => "ApiserverUnknown",
            Self::KubeletGatesUnknown => "KubeletGatesUnknown",
            Self::GateBarsWayBack => "GateBarsWayBack",
        }
    }

    /// What it makes of the condition.
    pub fn status(self) -> ConditionStatus {
        match self {
            Self::WebSocketsFail
            | Self::ApiserverRefusesGate
            | Self::KubeletRefusesGate
            | Self::RuntimeUrlSchemeless => ConditionStatus::False,
            Self::RuntimeUrlUnknown
            | Self::DeclarationContradicts
            | Self::ApiserverUnknown
            | Self::KubeletGatesUnknown => ConditionStatus::Unknown,
            Self::GateBarsWayBack => ConditionStatus::True,
        }
    }
}

/// One thing that an upgrade would meet, or that is so now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub reason: WebSocketReason,
    /// Which nodes or apiservers, and what to do.
    pub message: String,
}

/// What this migration says to a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The minor that was judged: the policy's target, or the next one.
    pub minor: Minor,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// `WebSocketsSafe`.
    pub outcome: ConditionOutcome,
}

/// Why `UpgradeSafe` does not hold where `WebSocketsSafe` does not.
pub const UNSAFE: &str = "WebSocketsUnsafe";

impl Judgement {
    /// What there is to be said of the upgrade as a whole, if this speaks against it.
    pub fn against_upgrade(&self) -> Option<String> {
        let ConditionOutcome { status, reason, .. } = &self.outcome;
        let found = !self.findings.is_empty();
        (found && *status != ConditionStatus::True).then(|| {
            format!(
                "On the way to {} WebSockets, or components with their gates, fail or may fail: see \
                 WebSocketsSafe ({reason}).",
                self.minor
            )
        })
    }
}

/// The minor to judge for a target, or without one; `None` where this migration is still far.
pub fn minor(target: Option<Minor>, apiservers: &[Apiserver]) -> Option<Minor> {
    let running = || apiservers.iter().filter_map(|apiserver| apiserver.minor);
    let near = running().max().is_some_and(|newest| newest >= NEAR);
    let aims = target.is_some_and(|target| target > NEAR);
    if !near && !aims {
        return None;
    }
    let (Some(oldest), Some(newest)) = (running().min(), running().max()) else { return target };
    // Past the last change that is known there is nothing to say of the next.
    let next = if newest < super::gates::LAST { oldest.next().max(newest) } else { newest };
    Some(target.unwrap_or(next))
}

/// Judges the cluster for a target; `None` where this migration is still far.
pub fn judge<'a>(
    target: Option<Minor>,
    apiservers: &[Apiserver],
    nodes: impl IntoIterator<Item = Seen<'a>>,
) -> Option<Judgement> {
    let minor = minor(target, apiservers)?;
    let newest = apiservers.iter().filter_map(|apiserver| apiserver.minor).max();
    if let Some(newest) = newest.filter(|newest| minor < *newest) {
        let message = format!(
            "The target {minor} is behind the {newest} of an apiserver: set spec.targetVersion to \
             what you are going to, or take it out."
        );
        let (status, reason) = (ConditionStatus::False, "TargetVersionBehind");
        let outcome = ConditionOutcome::new(status, reason, message);
        return Some(Judgement { minor, findings: Vec::new(), outcome });
    }
    let mut found = Found::default();
    for apiserver in apiservers {
        found.add_apiserver(apiserver, minor);
    }
    if apiservers.is_empty() {
        found.hidden.add("any apiserver");
    }
    for node in nodes {
        found.add_node(&look(node, apiservers, minor));
    }
    let findings = found.findings(minor);
    let outcome = outcome(&findings, minor, newest);
    Some(Judgement { minor, findings, outcome })
}

/// What was found, by what is said of it.
#[derive(Default)]
struct Found<'a> {
    fails_now: NameSummary<'a>,
    concerns: BTreeMap<Concern, NameSummary<'a>>,
    /// Who says of which nodes that a URL has no scheme, by what comes of it.
    tellers: BTreeMap<(Concern, Teller), NameSummary<'a>>,
    apiservers: BTreeMap<Cliff, NameSummary<'a>>,
    kubelets: BTreeMap<Cliff, NameSummary<'a>>,
    hidden: NameSummary<'a>,
    unheard: NameSummary<'a>,
    /// By the minor that is barred and the gate.
    bars: BTreeMap<(Minor, StreamGate), NameSummary<'a>>,
}

impl<'a> Found<'a> {
    fn add_apiserver(&mut self, apiserver: &'a Apiserver, minor: Minor) {
        let name = apiserver.name.as_str();
        let cliffs = of_apiserver(apiserver, minor);
        if cliffs.unknown {
            self.hidden.add(name);
        }
        for cliff in cliffs.known {
            self.apiservers.entry(cliff).or_default().add(name);
        }
        let set = |gate: StreamGate| {
            apiserver.gates.as_ref().is_some_and(|gates| gates.get(gate.as_str()).is_some())
        };
        self.add_bars(name, apiserver.minor, set);
    }

    fn add_node(&mut self, surveyed: &Surveyed<'a>) {
        let Seen { name, facts, .. } = surveyed.node;
        match surveyed.concern {
            Some(Concern::FailsNow) => self.fails_now.add(name),
            Some(concern) => self.concerns.entry(concern).or_default().add(name),
            None => {}
        }
        if let (Some(concern), Some(teller)) = (surveyed.concern, facts.url_by)
            && facts.url == Some(StreamingUrl::SchemeLess)
        {
            self.tellers.entry((concern, teller)).or_default().add(name);
        }
        if surveyed.cliffs.unknown {
            self.unheard.add(name);
        }
        for cliff in &surveyed.cliffs.known {
            self.kubelets.entry(*cliff).or_default().add(name);
        }
        let set = |gate: StreamGate| {
            facts.gates.as_ref().is_some_and(|gates| gates.get(gate.as_str()).is_some())
        };
        self.add_bars(name, facts.kubelet, set);
    }

    fn add_bars(
        &mut self,
        name: &'a str,
        running: Option<Minor>,
        set: impl Fn(StreamGate) -> bool,
    ) {
        for gate in StreamGate::ALL {
            if running == Some(gate.first()) && set(gate) {
                let before = Minor(gate.first().0.saturating_sub(1));
                self.bars.entry((before, gate)).or_default().add(name);
            }
        }
    }

    /// Who says that these URLs have no scheme, and how to have him say otherwise. Each begins with a space.
    fn told(&self, of: Concern) -> String {
        let told = self.tellers.iter().filter(|((concern, _), _)| *concern == of);
        told.map(|((_, teller), nodes)| format!(" {}", teller.says(nodes))).collect()
    }

    fn findings(&self, minor: Minor) -> Vec<Finding> {
        use WebSocketReason as Reason;
        let mut findings = Vec::new();
        let mut add = |reason, message| findings.push(Finding { reason, message });
        if !self.fails_now.is_empty() {
            let message = fails_now(&self.fails_now, minor) + &self.told(Concern::FailsNow);
            add(Reason::WebSocketsFail, message);
        }
        for (cliff, named) in &self.apiservers {
            let message = format!(
                "{named} will not start with --feature-gates={}: {}. Take it out before.",
                cliff.setting(),
                cliff.says(),
            );
            add(Reason::ApiserverRefusesGate, message);
        }
        for (cliff, named) in &self.kubelets {
            let message = format!(
                "The kubelet of {named} will not start with the gate {}: {}. Take it out of its \
                 configuration before.",
                cliff.setting(),
                cliff.says(),
            );
            add(Reason::KubeletRefusesGate, message);
        }
        for (concern, named) in &self.concerns {
            add(concern.reason(), concern.says(named, minor) + &self.told(*concern));
        }
        if !self.hidden.is_empty() {
            let message = format!(
                "The version or the gates of {} cannot be seen, and one of them may keep it from \
                 starting: look at its --feature-gates, or tell them to sluice plan by \
                 --apiserver-version and --apiserver-feature-gates. {EMULATION_AND_BETA}",
                self.hidden
            );
            add(Reason::ApiserverUnknown, message);
        }
        if !self.unheard.is_empty() {
            let message = format!(
                "The gates of the kubelet of {} are not known, and one of them may keep it from \
                 starting: {}",
                self.unheard,
                how_to_tell_gates(),
            );
            add(Reason::KubeletGatesUnknown, message);
        }
        for ((before, gate), named) in &self.bars {
            let message = format!(
                "{named} cannot go back to {before} while the gate {} is set.",
                gate.as_str()
            );
            add(Reason::GateBarsWayBack, message);
        }
        findings
    }
}

/// What else hides what gates come to.
pub(super) const EMULATION_AND_BETA: &str = "Where it is set to --emulated-version or --emulation-forward-compatible, its gates are those of \
     another version: take that out first. Where it is set to AllBeta=false and to other gates, these may \
     depend on a beta one: set that by name.";

impl Teller {
    fn says(self, nodes: &NameSummary<'_>) -> String {
        match self {
            Self::Agent => format!(
                "That is what the agent of {nodes} saw: it looks again by itself while it is ready."
            ),
            Self::Annotation => format!(
                "That is what the annotation {URL_ANNOTATION} of {nodes} says: take it off, or correct \
                 it, once the runtime answers otherwise."
            ),
        }
    }
}

impl Concern {
    fn reason(self) -> WebSocketReason {
        match self {
            Self::FailsNow => WebSocketReason::WebSocketsFail,
            Self::SchemeLess => WebSocketReason::RuntimeUrlSchemeless,
            Self::UrlUnknown => WebSocketReason::RuntimeUrlUnknown,
            Self::Contradiction => WebSocketReason::DeclarationContradicts,
        }
    }

    fn says(self, nodes: &NameSummary<'_>, minor: Minor) -> String {
        let gate = StreamGate::ExtendToKubelet;
        let since = gate.first();
        match self {
            Self::FailsNow => fails_now(nodes, minor),
            Self::SchemeLess => {
                let remedy = if locked(minor) {
                    format!(
                        "upgrade cri-dockerd to a version that names one before the kubelets run {since}"
                    )
                } else {
                    format!(
                        "upgrade cri-dockerd to a version that names one before the kubelets run {since}, or set {}: false in \
                         their KubeletConfiguration while they are upgraded to it, and not before",
                        gate.as_str()
                    )
                };
                format!(
                    "Exec and attach by WebSocket will fail on {nodes}, whose runtime answers with a \
                     URL without a scheme: {remedy}."
                )
            }
            Self::UrlUnknown => format!(
                "Exec and attach by WebSocket may fail on {nodes}: whether the runtime answers with \
                 a URL with a scheme is not known. {}",
                how_to_tell_url()
            ),
            Self::Contradiction => format!(
                "What the Node of {nodes} declares does not fit its kubelet, so exec and attach by \
                 WebSocket may fail there: restart the kubelet, so that it declares anew."
            ),
        }
    }
}

/// Whether nothing but a newer runtime helps at this minor.
pub(super) fn locked(minor: Minor) -> bool {
    matches!(StreamGate::ExtendToKubelet.at(minor), super::gates::Behaviour::Locked { to: true })
}

fn fails_now(nodes: &NameSummary<'_>, minor: Minor) -> String {
    let gate = StreamGate::ExtendToKubelet.as_str();
    let until = if locked(minor) {
        format!("; in {minor} only the former will help, because the gate is planned to be locked")
    } else {
        String::new()
    };
    format!(
        "Exec and attach by WebSocket fail now on {nodes}, whose runtime answers with a URL without \
         a scheme, which the kubelet takes for TLS: upgrade cri-dockerd to a version that names one, \
         or set {gate}: false in their KubeletConfiguration and restart the kubelets{until}."
    )
}

/// How to say with which URL a runtime answers.
pub(super) fn how_to_tell_url() -> String {
    format!(
        "Have an agent look (a policy with spec.proxy, mode: Disabled is enough), or look yourself \
         and annotate the Node with {URL_ANNOTATION}=Absolute (or SchemeLess, as cri-dockerd up to \
         0.4.3 does)."
    )
}

/// How to say what a kubelet's gates are.
pub(super) fn how_to_tell_gates() -> String {
    format!(
        "Have an agent look (a policy with spec.proxy, mode: Disabled is enough), or look at its \
         configuration yourself and annotate the Node with {GATES_ANNOTATION}=\"\" where it names \
         none of {}, with those of them that it names (A=false,B=true) otherwise. An annotation with any \
         other name says nothing (but for {ALL_ALPHA} and {ALL_BETA}), and neither does one that is not what \
         the Node declares, or what k3s was started with.",
        StreamGate::ALL.map(StreamGate::as_str).join(", ")
    )
}

fn outcome(findings: &[Finding], minor: Minor, newest: Option<Minor>) -> ConditionOutcome {
    let planned = if minor >= PLANNED { ", as far as it is planned" } else { "" };
    let rights = StreamGate::AuthorizeCreate.first();
    let crosses = minor >= rights && newest.is_none_or(|newest| newest < rights);
    let mut message = match findings {
        [] => format!("Nothing that Sluice knows of breaks WebSockets at {minor}{planned}."),
        _ => {
            let all: Vec<&str> = findings.iter().map(|f| f.message.as_str()).collect();
            format!("On the way to {minor}: {}", all.join(" "))
        }
    };
    if crosses {
        message.push_str(&format!(
            " From {rights} on a WebSocket needs the right to create, and not to get alone: sluice \
             plan judges who has it, and this does not."
        ));
    }
    let reason = findings.first().map(|finding| finding.reason);
    let status = reason.map_or(ConditionStatus::True, WebSocketReason::status);
    ConditionOutcome::new(status, reason.map_or("NothingBreaks", WebSocketReason::as_str), message)
}
