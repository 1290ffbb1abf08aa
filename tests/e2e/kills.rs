//! Agents killed and upgraded all the time, under streams of every kind: none is refused, and none is lost but what an agent
//! held that was killed.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{self, NAMESPACE, pod, relayed},
    bed::{Bed, Client},
    operator,
    streams::{LONG, copy_back, digest, random_file},
};

/// One that proxies streams and one that redirects them.
const NODES: [&str; 2] = ["new1", "old1"];
const ATTACK: Duration = Duration::from_secs(60);
/// Between two kills.
const PAUSES: [u64; 5] = [2, 5, 3, 7, 4];
/// Of all agents, one after the other. Before 1.22 the next agent of a node waits for what the one before it carries.
const UPGRADES: usize = 3;
const COPIED: u64 = 256 << 20;
const UPGRADE: Duration = Duration::from_secs(250);
/// kubectl itself waits so long where a kill falls between the answer and its first stream's.
const STREAM: Duration = Duration::from_secs(60);

/// What became of streams.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    /// Cut while an agent held them.
    lost: Vec<String>,
    /// Not let in.
    refused: Vec<String>,
}

impl Tally {
    fn count(&mut self, stream: Result<(), Failed>) {
        match stream {
            Ok(()) => self.answered += 1,
            Err(Failed::Lost(said)) => self.lost.push(said),
            Err(Failed::Refused(said)) => self.refused.push(said),
        }
    }
}

/// How a stream has failed.
enum Failed {
    /// It was let in, and cut.
    Lost(String),
    /// It was not let in.
    Refused(String),
}

impl Failed {
    /// By kubectl's words.
    fn by(said: String) -> Self {
        let refusals = ["refused", "dialing backend", "(500)"];
        if refusals.iter().any(|no| said.contains(no)) {
            Self::Refused(said)
        } else {
            Self::Lost(said)
        }
    }
}

type Stream = fn(&Bed, &str, &str) -> Result<(), Failed>;
const STREAMS: [Stream; 3] = [exec, attach, forward];

fn exec(bed: &Bed, node: &str, word: &str) -> Result<(), Failed> {
    let args = ["exec", "-n", NAMESPACE, node, "--", "echo", word];
    let output = bed.kubectl_within(Client::Current, &args, STREAM);
    if output.success() && output.text() == word {
        Ok(())
    } else {
        Err(Failed::by(output.to_string()))
    }
}

fn attach(bed: &Bed, node: &str, word: &str) -> Result<(), Failed> {
    let args = ["attach", "-n", NAMESPACE, node, "--stdin"];
    let mut session = bed.kubectl_session(Client::Current, &args);
    session.say(word);
    session.line_with(word, STREAM).map(drop).map_err(Failed::by)
}

fn forward(bed: &Bed, node: &str, _: &str) -> Result<(), Failed> {
    let args = ["port-forward", "-n", NAMESPACE, node, ":8080"];
    let mut session = bed.kubectl_session(Client::Current, &args);
    let ready = session.line_with("Forwarding from 127.0.0.1:", STREAM).map_err(Failed::by)?;
    let address = ready.split_whitespace().nth(2).expect("kubectl names its address");
    // kubectl listens once it was let in, and is gone when its stream is: then its port refuses.
    let page = agent::fetch(address).map_err(|error| Failed::Lost(error.to_string()))?;
    if page.ends_with(&format!("page of {node}\n")) { Ok(()) } else { Err(Failed::Lost(page)) }
}

/// Many bytes, there and back.
fn copy(bed: &Bed, node: &str, _: &str) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    random_file(&there, COPIED);
    let remote = format!("{NAMESPACE}/{node}:/tmp/copied");
    let local = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let copied = bed.kubectl_within(Client::Current, &["cp", &local(&there), &remote], LONG);
    if !copied.success() {
        return Err(Failed::by(copied.to_string()));
    }
    copy_back(bed, Client::Current, &remote, &local(&back));
    if digest(&back) == digest(&there) {
        Ok(())
    } else {
        Err(Failed::Lost("other bytes came back".to_owned()))
    }
}

/// Kills the node's agent again and again; tells how often there was one.
fn kill(bed: &Bed, node: &str, until: Instant) -> usize {
    let mut kills = 0;
    for pause in PAUSES.iter().cycle() {
        thread::sleep(Duration::from_secs(*pause));
        if Instant::now() >= until {
            return kills;
        }
        kills +=
            usize::from(bed.host_exec(node, &["pkill", "-KILL", "-f", "^/sluice agent"]).success());
        // Its kubelet would wait longer each time before it starts it again.
        let of_node = format!("spec.nodeName={node}");
        let agents = ["-l", "app.kubernetes.io/component=agent", "--field-selector", &of_node];
        let now = ["--force", "--grace-period=0", "--wait=false"];
        bed.kubectl(&[&["delete", "pods", "-n", operator::NAMESPACE][..], &agents, &now].concat());
    }
    kills
}

/// Opens streams of every kind on both nodes, and these, each after the other for as long as the attack takes; returns what
/// the attack does.
fn under_streams<T>(
    bed: &Bed,
    others: &[(&'static str, Stream)],
    attack: impl FnOnce() -> T,
) -> (T, Tally) {
    let over = AtomicBool::new(false);
    let open = |node: &str, stream: Stream| {
        let mut tally = Tally::default();
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            tally.count(stream(bed, node, &format!("word-{number}-{}", std::process::id())));
        }
        tally
    };
    thread::scope(|scope| {
        let open = &open;
        let all = NODES.iter().flat_map(|node| STREAMS.map(|stream| (*node, stream)));
        let all = all.chain(others.iter().copied());
        let streams: Vec<_> =
            all.map(|(node, stream)| scope.spawn(move || open(node, stream))).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        over.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for tally in streams {
            let tally = tally.join().expect("a tally");
            all.answered += tally.answered;
            all.lost.extend(tally.lost);
            all.refused.extend(tally.refused);
        }
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (done, all)
    })
}

fn relaying(bed: &Bed) {
    agent::fresh(bed, "{mode: Streams}");
    for node in NODES {
        pod(bed, node);
        relayed(bed, node);
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn agents_that_are_killed_all_the_time_have_no_stream_refused() {
    let bed = Bed::shared();
    let bed: &Bed = &bed;
    relaying(bed);
    let until = Instant::now() + ATTACK;
    let (kills, Tally { answered, lost, refused }) = under_streams(bed, &[], || {
        thread::scope(|scope| {
            let killers = NODES.map(|node| scope.spawn(move || kill(bed, node, until)));
            killers.map(|killer| killer.join().expect("a killer")).iter().sum::<usize>()
        })
    });
    eprintln!("{kills} kills: {answered} streams answered, {} lost: {lost:#?}", lost.len());
    assert!(refused.is_empty(), "refused: {refused:#?}");
    assert!(kills >= NODES.len() * 3, "{kills} kills are no attack");
    // Of each kind one at a time.
    assert!(lost.len() <= kills * STREAMS.len(), "{} lost by {kills} kills", lost.len());
    assert!(answered > lost.len(), "{answered} answered, {} lost", lost.len());
    for node in NODES {
        relayed(bed, node);
    }
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn agents_that_are_upgraded_all_the_time_lose_no_stream() {
    let bed = Bed::shared();
    let bed: &Bed = &bed;
    relaying(bed);
    let agents = ["-n", operator::NAMESPACE, "daemonset/sluice-agent"];
    let copies: [(_, Stream); 1] = [(NODES[0], copy)];
    let (took, Tally { answered, lost, refused }) = under_streams(bed, &copies, || {
        let start = Instant::now();
        for _ in 0..UPGRADES {
            bed.kubectl(&[&["rollout", "restart"][..], &agents].concat()).succeeded();
            let status = [&["rollout", "status", "--timeout=240s"][..], &agents].concat();
            bed.kubectl_within(Client::Current, &status, UPGRADE).succeeded();
        }
        start.elapsed()
    });
    eprintln!("{UPGRADES} upgrades in {took:.0?}: {answered} streams answered");
    assert!(refused.is_empty(), "refused: {refused:#?}");
    assert!(lost.is_empty(), "lost: {lost:#?}");
    assert!(answered >= UPGRADES * NODES.len() * STREAMS.len(), "{answered} are no load");
    for node in NODES {
        relayed(bed, node);
    }
}
