//! A node's own agent, as it is kept.

mod pod;

use std::net::SocketAddr;

pub use pod::{AGENT_LABELS, AgentPod, ready_nodes};

use super::{origin::Origin, websockets::SaidOfStreams};
use crate::{
    api::AgentReport,
    decision::{
        proxy::{Streams, Trouble},
        redirects::evidence::{Claim, Source},
    },
    kubernetes::arguments::kubelet::FlagValue,
};

/// The name of the agent's container in its pod, by which its runtime knows it.
pub const AGENT_CONTAINER: &str = "agent";

/// What of an agent has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentChange {
    /// What counts as evidence of the kubelet's flag.
    pub evidence: bool,
    /// What becomes of the node's streams, or whether the agent is there.
    pub proxy: bool,
}

/// What a node's agent says, and whether it is there to say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Agent {
    /// What it says of the kubelet's flag.
    claims: Vec<Claim>,
    /// What it says of the node's streams.
    pub streams: Streams,
    /// The files of the kubelet's unit that name the flag.
    pub files: Vec<String>,
    /// Whether a kubelet that proxies is not known to trust the runtime's streaming server.
    pub distrusted: bool,
    /// Whether the kubelet keeps exiting.
    pub crashes: bool,
    /// Whether it has reported.
    pub reported: bool,
    /// Whether its pod is ready.
    pub ready: bool,
    /// What it saw of the node's streams.
    said_of_streams: SaidOfStreams,
    /// The runtime whose streaming server listens on more than loopback, and where.
    pub exposed: Option<(String, SocketAddr)>,
    /// Where what it says comes from.
    origin: Origin,
    /// What it says, where that does not say where it comes from.
    unsigned: Option<Box<AgentReport>>,
    /// The Node is another one than when that was said.
    outlived: bool,
}

impl Agent {
    /// Takes a newer report.
    pub fn hear(&mut self, report: Option<&AgentReport>) {
        self.claims = report.map(claims).unwrap_or_default();
        self.files = report.map(|report| report.files.clone()).unwrap_or_default();
        self.streams = report.map(streams).unwrap_or_default();
        self.reported = report.is_some();
        self.exposed = report.and_then(exposed);
        self.distrusted = report.is_some_and(distrusts);
        self.crashes = report.is_some_and(|report| report.kubelet_crash_loops.is_some());
        self.said_of_streams = report.map(SaidOfStreams::of_agent).unwrap_or_default();
        self.origin = report.map(Origin::of_agent).unwrap_or_default();
        let unsigned = report.filter(|_| self.origin.is_unknown());
        self.outlived &= unsigned.is_some() && self.unsigned.as_deref() == unsigned;
        self.unsigned = unsigned.cloned().map(Box::new);
    }

    /// The Node is gone, or another one: what was said before is not about it.
    pub fn outlive(&mut self) {
        self.outlived = self.unsigned.is_some();
    }

    /// Whether what it says is about the machine of this Node, as it runs now.
    pub fn is_of(&self, node: &Origin) -> bool {
        self.origin.is(node) && !self.outlived
    }

    /// What counts of what it says. A report outlives the agent that wrote it: where nobody vouches
    /// for the agent, its words for off are old ones and may not open the gate. Its other words
    /// still may close it.
    pub fn claims(&self, vouched: bool) -> impl Iterator<Item = Claim> + '_ {
        let off = |claim: &Claim| matches!(claim.says, FlagValue::Off | FlagValue::Absent);
        self.claims.iter().copied().filter(move |claim| vouched || !off(claim))
    }

    /// What counts of what it saw of the streams of this Node.
    pub fn said_of_streams(&self, vouched: bool, node: &Origin) -> SaidOfStreams {
        self.said_of_streams.clone().unless_old(vouched, self.is_of(node))
    }

    /// Whether there is nothing to keep.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

fn claims(report: &AgentReport) -> Vec<Claim> {
    let mut running = Claim { source: Source::Agent, says: says(&report.flag) };
    // A redirect that was followed is proof, whatever the command line seems to say.
    if report.followed_redirect.is_some() {
        running.says = FlagValue::On;
    }
    let next = report.next_start.as_deref();
    let next = next.map(|text| Claim { source: Source::EnvFiles, says: says(text) });
    std::iter::once(running).chain(next).collect()
}

/// Whether a kubelet that proxies is not known to trust the runtime's streaming server. An agent of
/// an older release does not say.
pub fn distrusts(report: &AgentReport) -> bool {
    report.runtime.as_ref().is_some_and(|runtime| runtime.tls && runtime.trusted != Some(true))
}

fn exposed(report: &AgentReport) -> Option<(String, SocketAddr)> {
    let runtime = report.runtime.as_ref()?;
    let address: SocketAddr = runtime.streaming_address.as_ref()?.parse().ok()?;
    (!address.ip().is_loopback()).then(|| (runtime.name.clone(), address))
}

fn streams(report: &AgentReport) -> Streams {
    match report.streams.as_deref() {
        None => Streams::Untold,
        Some("Relayed") => Streams::Relayed,
        Some(other) => Streams::NotRelayed(Box::new(Trouble {
            refused: other == "Refused",
            reason: report.reason.clone().unwrap_or_default(),
            message: report.message.clone().unwrap_or_default(),
        })),
    }
}

fn says(text: &str) -> FlagValue {
    match text {
        "On" => FlagValue::On,
        "Off" => FlagValue::Off,
        "Absent" => FlagValue::Absent,
        _ => FlagValue::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::{FollowedRedirect, RuntimeReport};

    fn report(flag: &str, next_start: Option<&str>) -> AgentReport {
        AgentReport {
            flag: flag.to_owned(),
            since: Time("2026-01-01T00:00:00Z".parse().unwrap()),
            next_start: next_start.map(str::to_owned),
            files: Vec::new(),
            streams: None,
            reason: None,
            message: None,
            runtime: None,
            followed_redirect: None,
            boot_id: None,
            machine_id: None,
            kubelet_crash_loops: None,
            streaming_gates: None,
            streaming_url: None,
        }
    }

    #[test]
    fn what_is_said_is_about_one_start_of_one_machine() {
        let origin = |boot: &str| Origin { boot: boot.to_owned(), machine: String::new() };
        let of = |boot: Option<&str>| AgentReport {
            boot_id: boot.map(str::to_owned),
            ..report("Absent", None)
        };
        let mut agent = Agent::default();
        agent.hear(Some(&of(Some("a"))));
        assert!(agent.is_of(&origin("a")) && !agent.is_of(&origin("b")));
        // The Node comes back under another uid, and the machine is the same.
        agent.outlive();
        assert!(agent.is_of(&origin("a")));
        // An older agent does not say, so it counts only where the Node does not say either, and no
        // longer than that Node.
        agent.hear(Some(&of(None)));
        assert!(!agent.is_of(&origin("a")) && agent.is_of(&Origin::default()));
        agent.outlive();
        agent.hear(Some(&of(None)));
        assert!(!agent.is_of(&Origin::default()));
        agent.hear(Some(&AgentReport { flag: "On".to_owned(), ..of(None) }));
        assert!(agent.is_of(&Origin::default()));
    }

    #[test]
    fn an_agent_that_nobody_vouches_for_says_nothing_for_off() {
        use FlagValue::{Absent, Off, On, Unreadable};
        for (flag, next_start, vouched, alone) in [
            ("On", None, vec![On], vec![On]),
            ("Off", None, vec![Off], vec![]),
            ("Absent", None, vec![Absent], vec![]),
            ("Perhaps", None, vec![Unreadable], vec![Unreadable]),
            ("Absent", Some("On"), vec![Absent, On], vec![On]),
            ("On", Some("Off"), vec![On, Off], vec![On]),
            ("Absent", Some("Off"), vec![Absent, Off], vec![]),
            ("Absent", Some("Unreadable"), vec![Absent, Unreadable], vec![Unreadable]),
        ] {
            let mut agent = Agent::default();
            agent.hear(Some(&report(flag, next_start)));
            let said = |vouched| agent.claims(vouched).map(|claim| claim.says).collect::<Vec<_>>();
            assert_eq!((said(true), said(false)), (vouched, alone), "{flag} {next_start:?}");
        }
    }

    #[test]
    fn a_followed_redirect_outweighs_a_command_line() {
        let since = Time("2026-01-01T00:00:00Z".parse().unwrap());
        let followed = FollowedRedirect { peer: "10.0.0.1".to_owned(), since };
        let mut agent = Agent::default();
        agent.hear(Some(&AgentReport { followed_redirect: Some(followed), ..report("Off", None) }));
        assert_eq!(agent.claims(true).map(|claim| claim.says).collect::<Vec<_>>(), [FlagValue::On]);
    }

    #[test]
    fn what_is_not_known_to_be_trusted_is_not() {
        for (tls, trusted, distrusted) in [
            (false, None, false),
            (true, Some(true), false),
            (true, Some(false), true),
            // The certificate could not be seen, or an agent of an older release does not say.
            (true, None, true),
        ] {
            let runtime = RuntimeReport {
                name: "containerd".to_owned(),
                version: "v1.6.20".to_owned(),
                streaming_address: None,
                tls,
                trusted,
                reachable: true,
            };
            let report = AgentReport { runtime: Some(runtime), ..report("On", None) };
            assert_eq!(distrusts(&report), distrusted, "{tls} {trusted:?}");
        }
        assert!(!distrusts(&report("On", None)));
    }
}
