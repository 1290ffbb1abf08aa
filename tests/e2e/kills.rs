//! Agents killed all the time, under streams of every kind: none is refused, and none is lost but what an agent held.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{self, NAMESPACE, pod, relayed},
    bed::{Bed, Client},
    operator,
};

/// One that proxies streams and one that redirects them.
const NODES: [&str; 2] = ["new1", "old1"];
const ATTACK: Duration = Duration::from_secs(60);
/// Between two kills.
const PAUSES: [u64; 5] = [2, 5, 3, 7, 4];
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

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn agents_that_are_killed_all_the_time_have_no_stream_refused() {
    let bed = Bed::shared();
    let bed: &Bed = &bed;
    agent::fresh(bed, "{mode: Streams}");
    for node in NODES {
        pod(bed, node);
        relayed(bed, node);
    }
    let until = Instant::now() + ATTACK;
    let open = |node: &str, stream: Stream| {
        let mut tally = Tally::default();
        for number in 0.. {
            if Instant::now() >= until {
                break;
            }
            tally.count(stream(bed, node, &format!("word-{number}-{}", std::process::id())));
        }
        tally
    };
    let (kills, tallies) = thread::scope(|scope| {
        let killers = NODES.map(|node| scope.spawn(move || kill(bed, node, until)));
        let all = NODES.iter().flat_map(|node| STREAMS.map(|stream| (*node, stream)));
        let streams: Vec<_> =
            all.map(|(node, stream)| scope.spawn(move || open(node, stream))).collect();
        let kills: usize = killers.map(|killer| killer.join().expect("a killer")).iter().sum();
        let tallies: Vec<_> =
            streams.into_iter().map(|stream| stream.join().expect("a tally")).collect();
        (kills, tallies)
    });
    let answered: usize = tallies.iter().map(|tally| tally.answered).sum();
    let lost: Vec<_> = tallies.iter().flat_map(|tally| &tally.lost).collect();
    let refused: Vec<_> = tallies.iter().flat_map(|tally| &tally.refused).collect();
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
