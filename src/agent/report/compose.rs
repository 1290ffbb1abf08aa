//! From what is seen to a report. Pure: the clock is passed in.

use std::net::SocketAddr;

use jiff::Timestamp;

use crate::{
    agent::{kubelet::Kubelet, redirect::Attached},
    api::{AgentReport, CrashLoops, FollowedRedirect, RuntimeReport},
    cluster::whole_seconds,
    kubernetes::arguments::kubelet::FlagValue,
    node::machine::Machine,
    relay::RemotePeer,
};

/// Makes reports; remembers what belongs to the kubelet that runs now.
#[derive(Debug, Default)]
pub struct Composer {
    /// The machine that it reports of.
    machine: Machine,
    /// The kubelet of the last report.
    process: Option<(u32, u64)>,
    /// Whether another kubelet than that of the stored report may run now.
    restarted: bool,
    followed: Option<FollowedRedirect>,
    /// The last peer that was looked at.
    remote: Option<RemotePeer>,
}

impl Composer {
    /// Makes reports of this machine.
    pub fn of(machine: Machine) -> Self {
        Self { machine, ..Self::default() }
    }

    /// The report for what is seen now; `None` before anything is. What is `known` keeps its times.
    pub fn compose(
        &mut self,
        kubelet: &Kubelet,
        attached: Option<&Attached>,
        remote: Option<RemotePeer>,
        known: Option<&AgentReport>,
        now: Timestamp,
    ) -> Option<AgentReport> {
        let flag = kubelet.flag?;
        let attached = attached?;
        // What was said of another machine, or before the last start, was of another kubelet.
        let known = known.filter(|known| self.is_own(known));
        self.follow(kubelet, remote, known);
        let same = known.filter(|known| known.flag == flag.as_str());
        Some(AgentReport {
            flag: flag.as_str().to_owned(),
            since: same.map_or_else(|| whole_seconds(now), |known| known.since.clone()),
            next_start: kubelet.next_start.map(|says| says.as_str().to_owned()),
            files: kubelet.files.clone(),
            streams: Some(attached.outcome.streams.as_str().to_owned()),
            reason: Some(attached.outcome.reason.to_owned()),
            message: Some(attached.outcome.message.clone()),
            runtime: runtime(attached).or_else(|| silent(known?)),
            streaming_gates: kubelet.streaming_gates.clone(),
            streaming_url: streaming_url(attached, known),
            followed_redirect: self.followed.clone(),
            boot_id: self.machine.boot.clone(),
            machine_id: self.machine.id.clone(),
            kubelet_crash_loops: kubelet.crashes.as_ref().map(|message| {
                let since = known.and_then(|known| known.kubelet_crash_loops.as_ref());
                let since = since.map_or_else(|| whole_seconds(now), |before| before.since.clone());
                CrashLoops { since, message: message.clone() }
            }),
        })
    }

    /// Whether what is `known` of the kubelet is what is seen of it now. Nobody who only looks knows
    /// of streams.
    pub fn agrees(&self, kubelet: &Kubelet, known: &AgentReport) -> bool {
        let next_start = kubelet.next_start.map(FlagValue::as_str);
        self.is_own(known)
            && kubelet.flag.map(FlagValue::as_str) == Some(known.flag.as_str())
            && next_start == known.next_start.as_deref()
            && kubelet.files == known.files
            && kubelet.crashes.is_some() == known.kubelet_crash_loops.is_some()
            // One of the two may have come after a file changed, or may be of an older release.
            && (kubelet.streaming_gates.is_none()
                || known.streaming_gates.is_none()
                || kubelet.streaming_gates == known.streaming_gates)
    }

    fn is_own(&self, known: &AgentReport) -> bool {
        let Machine { boot, id } = &self.machine;
        (&known.boot_id, &known.machine_id) == (boot, id)
    }

    /// A followed redirect is proof about the kubelet that gave it, and about no later one. The
    /// first peer is kept: with several apiservers the last one would change with every stream.
    fn follow(
        &mut self,
        kubelet: &Kubelet,
        remote: Option<RemotePeer>,
        known: Option<&AgentReport>,
    ) {
        match (self.process, kubelet.process) {
            // The stored proof may be older than this kubelet only if the kubelet was restarted
            // while no agent ran; then it says "redirects" of one that may not: the safe error,
            // mended by the next restart.
            (None, Some(_)) if !self.restarted => {
                self.followed = known.and_then(|known| known.followed_redirect.clone());
            }
            (Some(before), Some(now)) if before != now => self.forget(remote),
            (Some(_), None) => {
                self.restarted = true;
                self.forget(remote);
            }
            _ => {}
        }
        self.process = kubelet.process;
        if self.remote != remote {
            self.remote = remote;
            if let (None, Some(remote)) = (&self.followed, remote) {
                let since = whole_seconds(remote.at);
                self.followed = Some(FollowedRedirect { peer: remote.peer.to_string(), since });
            }
        }
    }

    fn forget(&mut self, remote: Option<RemotePeer>) {
        self.followed = None;
        self.remote = remote;
    }
}

fn runtime(attached: &Attached) -> Option<RuntimeReport> {
    attached.runtime.as_ref().map(|runtime| RuntimeReport {
        name: named(&runtime.name),
        version: named(&runtime.version),
        streaming_address: streaming_address(attached).map(|address| address.to_string()),
        tls: runtime.server.as_ref().is_some_and(|server| server.tls),
        trusted: attached.trusted,
        reachable: attached.answers.is_some(),
    })
}

/// Where the runtime streams: where it answers, else where it may.
fn streaming_address(attached: &Attached) -> Option<SocketAddr> {
    let server = attached.runtime.as_ref()?.server.as_ref()?;
    attached.answers.or_else(|| server.addresses.first().copied())
}

/// The form of the runtime's URL. One that does not tell at the moment is still the one that it was;
/// one that streams through the kubelet's port answers with a path, which is neither.
fn streaming_url(attached: &Attached, known: Option<&AgentReport>) -> Option<String> {
    match &attached.runtime {
        Some(runtime) => Some(runtime.server.as_ref()?.form.as_str().to_owned()),
        None => known?.streaming_url.clone(),
    }
}

/// A runtime that does not tell at the moment, such as in a restart, is still the one that it was: what
/// it streams with must not be forgotten by whoever would take the kubelet's redirects away.
fn silent(known: &AgentReport) -> Option<RuntimeReport> {
    known.runtime.clone().map(|runtime| RuntimeReport { reachable: false, ..runtime })
}

/// An apiserver of 1.20 may refuse empty strings.
fn named(text: &str) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        agent::{
            cri::{Runtime, Server, UrlForm},
            redirect::{Standing, Want},
        },
        api::FailurePolicy,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn kubelet(pid: u32, flag: FlagValue) -> Kubelet {
        Kubelet { process: Some((pid, 1)), flag: Some(flag), ..Kubelet::default() }
    }

    fn attached() -> Attached {
        Attached {
            runtime: Some(Runtime {
                name: "containerd".into(),
                version: String::new(),
                server: Some(Server {
                    addresses: vec!["127.0.0.1:34567".parse().unwrap()],
                    host: "127.0.0.1".to_owned(),
                    tls: false,
                    form: UrlForm::SchemeLess,
                }),
            }),
            answers: Some("127.0.0.1:34567".parse().unwrap()),
            trusted: None,
            outcome: Standing {
                proven: Some(Instant::now()),
                ..Standing::new(Want::Relay(FailurePolicy::Open))
            }
            .judge(Instant::now()),
        }
    }

    fn remote(peer: &str, second: i64) -> Option<RemotePeer> {
        Some(RemotePeer { peer: peer.parse().unwrap(), at: at(second) })
    }

    fn compose(
        composer: &mut Composer,
        kubelet: &Kubelet,
        remote: Option<RemotePeer>,
        known: Option<&AgentReport>,
        now: i64,
    ) -> AgentReport {
        composer.compose(kubelet, Some(&attached()), remote, known, at(now)).unwrap()
    }

    #[test]
    fn times_are_kept_while_the_flag_says_the_same() {
        let mut composer = Composer::default();
        assert_eq!(
            composer.compose(&Kubelet::default(), Some(&attached()), None, None, at(1)),
            None
        );
        assert_eq!(composer.compose(&kubelet(1, FlagValue::On), None, None, None, at(1)), None);
        let first = compose(&mut composer, &kubelet(1, FlagValue::On), None, None, 10);
        assert_eq!((first.flag.as_str(), first.since.0), ("On", at(10)));
        assert_eq!(first.runtime.as_ref().unwrap().version, "unknown");
        let same = compose(&mut composer, &kubelet(1, FlagValue::On), None, Some(&first), 20);
        assert_eq!(same, first);
        // Another agent on the same node goes on with what is stored.
        let other =
            compose(&mut Composer::default(), &kubelet(1, FlagValue::On), None, Some(&first), 30);
        assert_eq!(other, first);
        let off = compose(&mut composer, &kubelet(2, FlagValue::Off), None, Some(&same), 40);
        assert_eq!((off.flag.as_str(), off.since.0), ("Off", at(40)));
    }

    #[test]
    fn what_is_stored_of_another_start_of_the_machine_does_not_count() {
        let of = |boot: &str| {
            Composer::of(Machine { boot: Some(boot.to_owned()), id: Some("m".to_owned()) })
        };
        let one = kubelet(1, FlagValue::On);
        let first = compose(&mut of("b"), &one, remote("10.0.0.1", 5), None, 6);
        assert_eq!(first.boot_id.as_deref(), Some("b"));
        assert_eq!(compose(&mut of("b"), &one, None, Some(&first), 20), first);
        let later = compose(&mut of("c"), &one, None, Some(&first), 20);
        assert_eq!((later.since.0, later.followed_redirect), (at(20), None));
    }

    #[test]
    fn an_agent_that_waits_agrees_with_what_it_sees_itself_and_nothing_else() {
        let machine = Machine { boot: Some("b".to_owned()), id: Some("m".to_owned()) };
        let mut composer = Composer::of(machine.clone());
        let one = kubelet(1, FlagValue::Off);
        let known = compose(&mut composer, &one, None, None, 1);
        let waiting = Composer::of(machine);
        assert!(waiting.agrees(&one, &known));
        // Of the gates the two may know different things, but must not say different things.
        let gates = |on| Some([("AllBeta".to_owned(), on)].into());
        for (seen, told, agrees) in [
            (gates(true), None, true),
            (None, gates(true), true),
            (gates(true), gates(true), true),
            (gates(true), gates(false), false),
            (Some(Default::default()), gates(false), false),
        ] {
            let known = AgentReport { streaming_gates: told, ..known.clone() };
            let seen = Kubelet { streaming_gates: seen, ..one.clone() };
            assert_eq!(waiting.agrees(&seen, &known), agrees, "{seen:?} {known:?}");
        }
        for other in [
            kubelet(1, FlagValue::On),
            Kubelet::default(),
            Kubelet { next_start: Some(FlagValue::On), ..one.clone() },
            Kubelet { files: vec!["/etc/default/kubelet".to_owned()], ..one.clone() },
            Kubelet { crashes: Some("It exits.".to_owned()), ..one.clone() },
        ] {
            assert!(!waiting.agrees(&other, &known), "{other:?}");
        }
        // Written before the machine was started again.
        assert!(!Composer::default().agrees(&one, &known));
    }

    #[test]
    fn a_followed_redirect_is_about_the_kubelet_that_gave_it() {
        let mut composer = Composer::default();
        let (one, two) = (kubelet(1, FlagValue::On), kubelet(2, FlagValue::Off));
        let first = compose(&mut composer, &one, remote("10.0.0.1", 5), None, 6);
        let followed = first.followed_redirect.clone().unwrap();
        assert_eq!((followed.peer.as_str(), followed.since.0), ("10.0.0.1", at(5)));
        // Another apiserver does so, too: nothing new.
        let again = compose(&mut composer, &one, remote("10.0.0.2", 7), Some(&first), 8);
        assert_eq!(again, first);
        // Another kubelet: what was seen before is no proof about it.
        let later = compose(&mut composer, &two, remote("10.0.0.2", 7), Some(&again), 9);
        assert_eq!(later.followed_redirect, None);
        let proof = compose(&mut composer, &two, remote("10.0.0.2", 11), Some(&later), 12);
        assert_eq!(proof.followed_redirect.unwrap().peer, "10.0.0.2");
        // Another agent keeps what is stored, while it has seen no restart.
        let mut other = Composer::default();
        assert!(compose(&mut other, &one, None, Some(&first), 20).followed_redirect.is_some());
        let gone = Kubelet { flag: Some(FlagValue::Unreadable), ..Kubelet::default() };
        assert!(compose(&mut other, &gone, None, Some(&first), 21).followed_redirect.is_none());
        assert!(compose(&mut other, &two, None, Some(&first), 22).followed_redirect.is_none());
    }

    #[test]
    fn a_kubelet_that_keeps_exiting_is_told_of_once() {
        let mut composer = Composer::default();
        let ends =
            |pid| Kubelet { crashes: Some("It exits.".to_owned()), ..kubelet(pid, FlagValue::On) };
        let first = compose(&mut composer, &ends(1), None, None, 10);
        let told = first.kubelet_crash_loops.clone().unwrap();
        assert_eq!((told.since.0, &*told.message), (at(10), "It exits."));
        let gone = Kubelet { process: None, ..ends(1) };
        assert_eq!(compose(&mut composer, &gone, None, Some(&first), 11), first);
        assert_eq!(compose(&mut composer, &ends(2), None, Some(&first), 12), first);
        let up = compose(&mut composer, &kubelet(2, FlagValue::On), None, Some(&first), 32);
        assert_eq!(up.kubelet_crash_loops, None);
    }

    #[test]
    fn a_runtime_that_does_not_tell_is_not_forgotten() {
        let kubelet = Kubelet { flag: Some(FlagValue::On), ..Kubelet::default() };
        let mut told = attached();
        let server = told.runtime.as_mut().and_then(|runtime| runtime.server.as_mut());
        server.unwrap().tls = true;
        told.trusted = Some(false);
        let mut composer = Composer::default();
        let first = composer.compose(&kubelet, Some(&told), None, None, at(1)).unwrap();
        let silent = Attached { runtime: None, answers: None, ..told };
        let again = composer.compose(&kubelet, Some(&silent), None, Some(&first), at(2)).unwrap();
        let runtime = again.runtime.unwrap();
        assert_eq!((runtime.tls, runtime.trusted, runtime.reachable), (true, Some(false), false));
        assert_eq!(again.streaming_url.as_deref(), Some("SchemeLess"));
        assert_eq!(runtime.streaming_address, first.runtime.as_ref().unwrap().streaming_address);
        // Of another start of the machine nothing is known.
        let mut other = Composer::of(Machine { boot: Some("b".to_owned()), id: None });
        let report = other.compose(&kubelet, Some(&silent), None, Some(&first), at(3)).unwrap();
        assert_eq!((report.runtime, report.streaming_url), (None, None));
        // One that streams through the kubelet's own port has no URL of its own.
        let mut through = attached();
        through.runtime.as_mut().unwrap().server = None;
        let report = composer.compose(&kubelet, Some(&through), None, Some(&first), at(4)).unwrap();
        assert_eq!(report.streaming_url, None);
    }
}
