//! The rules in a real kernel, a real relay behind them, and a runtime that is played.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    net::{Net, run},
    node::{ANSWER, Node, PORT, Streaming, at, exec, exec_from, relay, soon, url},
    *,
};
use crate::{
    agent::cri::{Server, UrlForm},
    relay::Refusal,
};

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn streams_of_this_host_and_of_others_are_brought_to_the_relay() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    for (ip, peer) in [
        ("127.0.0.1", None),
        ("::1", None),
        ("10.9.0.1", Some("10.9.0.2")),
        ("fd00::1", Some("fd00::2")),
    ] {
        here.with(async || {
            let _streaming = Streaming::listen(at(ip)).await;
            let mut node = Node::start(at(ip), FailurePolicy::Open);
            node.relays(at(ip)).await;
            let (stream, answer) = exec(at(ip)).await.unwrap();
            assert_eq!(answer, ANSWER);
            let streams = node.relay.streams();
            let [carried] = streams.as_slice() else { panic!("{streams:?}") };
            assert_eq!((carried.peer, carried.remote), (stream.local_addr().unwrap(), false));
            assert_eq!(*node.relay.remote_peers().borrow(), None);
            let Some(peer) = peer else { return };
            let asked = tokio::task::spawn_blocking({
                let there = there.asker();
                move || there.ask(ip, PORT)
            });
            assert_eq!(asked.await.unwrap(), ANSWER);
            let found = node.relay.remote_peers().borrow().unwrap();
            assert_eq!(found.peer, peer.parse::<IpAddr>().unwrap());
        });
    }
}

/// What the relay listens at is for the kernel alone.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn nobody_is_served_at_the_relays_own_port_or_for_another_destination() {
    Net::new().with(async || {
        let (relay, listeners, _serving) = relay();
        let refused = |refusal: Refusal| {
            relay.totals().refused[Refusal::ALL.iter().position(|r| *r == refusal).unwrap()]
        };
        for listener in &listeners {
            assert!(exec(*listener).await.is_err());
        }
        assert_eq!(refused(Refusal::NotRedirected), 2);
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let script = rules::install(&[at("127.0.0.1")], listeners[0], FailurePolicy::Open, &[]);
        run(&format!("nft -f - <<'END'\n{script}END"));
        run(&format!("nft add element ip sluice live '{{ 127.0.0.1 . {PORT} timeout 1m }}'"));
        // The rules are wider than what is allowed.
        assert!(exec(at("127.0.0.1")).await.is_err());
        assert_eq!(refused(Refusal::NotRuntime), 1);
        relay.allow([at("127.0.0.1")]);
        assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn past_a_dead_relay_streams_go_at_once() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        let (mut held, _) = exec(at("127.0.0.1")).await.unwrap();
        node.kill_the_relay().await;
        for _ in 0..200 {
            assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
        }
        assert_eq!(node.carried(), 1);
        // What it held learns of it.
        let ended = soon("the end", held.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_err() || ended.is_ok_and(|read| read < 64));
        let direct = |now: &Attached| now.outcome.streams == Streams::Direct;
        assert_eq!(node.is("it is told", direct).await.outcome.reason, "RulesWithoutEffect");
    });
}

/// Also what comes from a port whose last connection the relay has ended, and where connections are
/// not tracked.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn closed_refuses_all_that_the_relay_does_not_take() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    here.with(async || {
        Net::track_nothing();
        let _streaming = Streaming::listen("0.0.0.0:34567".parse().unwrap()).await;
        let mut node = Node::start(at("10.9.0.1"), FailurePolicy::Closed);
        node.relays(at("10.9.0.1")).await;
        for port in 41_000..41_020 {
            let (mut stream, answer) =
                exec_from(port, at("10.9.0.1")).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(answer, ANSWER);
            // The runtime ends it first, so that it is the relay's end that lingers.
            stream.write_all(b"x").await.unwrap();
            soon("the end", stream.read_to_end(&mut Vec::new())).await.unwrap();
        }
        soon("the streams to end", node.relay.drained()).await;
        node.kill_the_relay().await;
        for port in 41_000..41_040 {
            let refused = exec_from(port, at("10.9.0.1")).await;
            assert!(refused.is_err(), "a stream from port {port} went past the relay");
        }
        let there = there.asker();
        let asked = tokio::task::spawn_blocking(move || there.ask("10.9.0.1", PORT));
        assert_eq!(asked.await.unwrap(), "");
        node.is("it is told", |now| now.outcome.streams == Streams::Refused).await;
        // Nobody wants it any more.
        node.wishes.send_replace(None);
        node.is("it is let go", |now| now.outcome.reason == "NotWanted").await;
        assert_eq!(exec(at("10.9.0.1")).await.unwrap().1, ANSWER);
    });
}

/// The relay answers for itself where it cannot reach the runtime, and that proves nothing.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn a_runtime_that_moves_is_followed_and_nothing_else_is_said_meanwhile() {
    Net::new().with(async || {
        let mut address = at("127.0.0.1");
        let mut streaming = Streaming::listen(address).await;
        let mut node = Node::start(address, FailurePolicy::Open);
        node.relays(address).await;
        for port in [PORT + 1, PORT + 2] {
            streaming.end().await;
            let gone = node.is("it is seen", |now| now.outcome.streams != Streams::Relayed).await;
            assert_eq!(gone.outcome.reason, "StreamingUnreachable");
            assert!(!node.standing.borrow().relays(Instant::now()));
            address.set_port(port);
            streaming = Streaming::listen(address).await;
            node.playing.change(|played| played.url = Ok(url(address)));
            node.relays(address).await;
            assert_eq!(exec(address).await.unwrap().1, ANSWER);
        }
        assert_eq!(node.carried(), 2);
        // dockershim, whose kubelet begins to redirect.
        streaming.end().await;
        node.playing.change(|played| played.url = Ok("/cri/exec/t0k3n".to_owned()));
        let through = |now: &Attached| now.outcome.reason == state::THROUGH_KUBELET;
        node.is("it is named", through).await;
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn a_runtime_that_takes_its_time_is_relayed_all_along() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        node.playing.change(|played| played.slow = Duration::from_millis(3500));
        let started = Instant::now();
        let mut execs = 0;
        while started.elapsed() < LIFETIME + LIFETIME / 2 {
            // Each new kubelet has it asked again.
            execs += 1;
            node.kubelet.send_modify(|kubelet| kubelet.process = Some((execs, 1)));
            assert_eq!(exec(at("127.0.0.1")).await.unwrap().1, ANSWER);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(node.carried(), u64::from(execs));
        assert_eq!(node.attached.borrow().as_ref().unwrap().outcome.streams, Streams::Relayed);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn rules_that_somebody_takes_away_come_back() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Closed);
        node.relays(at("127.0.0.1")).await;
        run("nft flush ruleset");
        soon("a stream through the relay", async {
            while node.carried() == 0 {
                // Until the rules are back they pass, and until the first probe has they do not.
                let _ = exec(at("127.0.0.1")).await;
            }
        })
        .await;
        // What an agent of an older release has left is taken away as well.
        run("nft 'flush ruleset; add table ip sluice; add chain ip sluice output \
             { type nat hook output priority -110; }; add rule ip sluice output tcp dport 34567 redirect to :9'");
        let before = node.carried();
        soon("a stream through the relay", async {
            while node.carried() == before {
                let _ = exec(at("127.0.0.1")).await;
            }
        })
        .await;
        drop(node.stop.take());
    });
}

/// Such as `localhost`, which is 127.0.0.1 and ::1.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn of_a_name_with_several_addresses_all_that_answer_are_relayed() {
    Net::new().with(async || {
        let (relay, listeners, _serving) = relay();
        let mut keeper = Keeper::new(listeners, Nft("nft".into()), relay.clone());
        let addresses = vec![at("127.0.0.1"), at("::1")];
        let server =
            Server { addresses, host: "localhost".to_owned(), tls: false, form: UrlForm::Absolute };
        let nobody = keeper.attach(&server, FailurePolicy::Open).await.unwrap_err();
        assert_eq!(nobody.reason, "StreamingUnreachable");
        for (listens, carried) in
            [(vec!["::1"], 1), (vec!["127.0.0.1"], 2), (vec!["127.0.0.1", "::1"], 4)]
        {
            let mut streaming = Vec::new();
            for ip in &listens {
                streaming.push(Streaming::listen(at(ip)).await);
            }
            let found = keeper.attach(&server, FailurePolicy::Open).await.unwrap();
            assert!(found.proven.is_some(), "{listens:?}");
            for ip in &listens {
                assert_eq!(exec(at(ip)).await.unwrap().1, ANSWER);
            }
            assert_eq!(relay.totals().opened[0], carried, "{listens:?}");
            for one in streaming {
                one.end().await;
            }
        }
    });
}

/// The class of CVE-2020-8558, and a host's own firewall.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn neighbours_reach_what_they_reach_without_an_agent() {
    let (here, there) = (Net::new(), Net::new());
    here.connect(&there);
    there.with(async || run("ip link set lo down; ip route add 127.0.0.1 via 10.9.0.1"));
    here.with(async || {
        let neighbour = async |host: &'static str| {
            let there = there.asker();
            tokio::task::spawn_blocking(move || there.ask(host, PORT)).await.unwrap()
        };
        let streaming = Streaming::listen(at("127.0.0.1")).await;
        let mut node = Node::start(at("127.0.0.1"), FailurePolicy::Open);
        node.relays(at("127.0.0.1")).await;
        for host in ["127.0.0.1", "10.9.0.1"] {
            assert_eq!(neighbour(host).await, "", "{host}");
        }
        assert_eq!(node.carried(), 0);
        streaming.end().await;
        run("nft -f - <<'END'
table inet firewall {
  chain in { type filter hook input priority 0; policy drop; iif lo accept; tcp dport 34567 accept; }
}
END");
        let _streaming = Streaming::listen(at("10.9.0.1")).await;
        node.playing.change(|played| played.url = Ok(url(at("10.9.0.1"))));
        node.relays(at("10.9.0.1")).await;
        assert_eq!(neighbour("10.9.0.1").await, ANSWER);
        assert_eq!(node.carried(), 1);
    });
}
