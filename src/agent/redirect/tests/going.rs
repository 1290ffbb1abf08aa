//! How an agent goes away, in a real kernel: with another one that takes over, and without.

use tokio::io::AsyncWriteExt;

use super::{
    net::Net,
    node::{ANSWER, Node, Streaming, at, exec, soon},
    *,
};

const HERE: &str = "127.0.0.1";

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn the_next_agent_takes_over_while_streams_are_opened_and_nobody_notices() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at(HERE)).await;
        let mut first = Node::start(at(HERE), FailurePolicy::Open);
        first.relays(at(HERE)).await;
        let (running, _) = exec(at(HERE)).await.unwrap();
        let mut second = first.beside(at(HERE), FailurePolicy::Open);
        for _ in 0..10 {
            assert_eq!(exec(at(HERE)).await.unwrap().1, ANSWER);
        }
        assert_eq!((*second.role.borrow(), second.carried()), (Role::Waiting, 0));

        first.stop();
        let mut opened = first.carried();
        soon("a stream through the second agent", async {
            while second.carried() == 0 {
                assert_eq!(exec(at(HERE)).await.unwrap().1, ANSWER);
                opened += 1;
            }
        })
        .await;
        second.relays(at(HERE)).await;
        let past = opened - first.carried() - second.carried();
        // Between the second agent's rules and its first probe.
        assert!(past < opened, "{past} of {opened} streams went past both");
        let succeeded = first.role.wait_for(|role| *role == Role::Succeeded);
        drop(soon("the first one to know", succeeded).await.unwrap());
        // What runs goes on, and is all that the first one waits for.
        soon("one stream", async {
            while first.relay.streams().len() != 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(running);
        first.ends().await;
        assert_eq!(exec(at(HERE)).await.unwrap().1, ANSWER);
        assert_eq!(*second.role.borrow(), Role::Acting);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn an_agent_without_a_next_one_lets_new_streams_pass_and_says_so() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at(HERE)).await;
        let mut node = Node::start(at(HERE), FailurePolicy::Open);
        node.relays(at(HERE)).await;
        let (running, _) = exec(at(HERE)).await.unwrap();
        node.stop();
        let ending = node.is("it ends", |now| now.outcome.reason == "Ending").await;
        assert_eq!(ending.outcome.streams, Streams::Direct);
        assert!(!node.standing.borrow().relays(Instant::now()));
        let carried = node.carried();
        assert_eq!(exec(at(HERE)).await.unwrap().1, ANSWER);
        assert_eq!((node.carried(), node.relay.streams().len()), (carried, 1));
        drop(running);
        node.ends().await;
    });
}

/// Whoever wants streams refused without an agent does not want them refused for as long as one of
/// them runs.
#[test]
#[ignore = "needs root and nft: make relay-test"]
fn an_agent_whose_end_refuses_streams_takes_them_until_none_is_left() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at(HERE)).await;
        let mut node = Node::start(at(HERE), FailurePolicy::Closed);
        node.relays(at(HERE)).await;
        let (running, _) = exec(at(HERE)).await.unwrap();
        node.stop();
        let left = Instant::now() + LIFETIME;
        let mut carried = node.carried();
        while Instant::now() < left {
            let (mut stream, answer) = exec(at(HERE)).await.unwrap();
            assert_eq!(answer, ANSWER);
            stream.write_all(b"x").await.unwrap();
            carried += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(node.carried(), carried);
        drop(running);
        node.ends().await;
        assert!(exec(at(HERE)).await.is_err(), "it went past the agent");
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn nothing_is_refused_once_nobody_wants_that() {
    Net::new().with(async || {
        let _streaming = Streaming::listen(at(HERE)).await;
        let mut node = Node::start(at(HERE), FailurePolicy::Closed);
        node.relays(at(HERE)).await;
        node.stop();
        node.wishes.send_replace(None);
        node.ends().await;
        assert_eq!(exec(at(HERE)).await.unwrap().1, ANSWER);
    });
}

#[test]
#[ignore = "needs root and nft: make relay-test"]
fn closed_lets_no_stream_pass_agents_that_are_upgraded_hang_or_die() {
    Net::new().with(async || {
        Net::track_nothing();
        let _streaming = Streaming::listen(at(HERE)).await;
        let mut first = Node::start(at(HERE), FailurePolicy::Closed);
        first.relays(at(HERE)).await;
        let mut second = first.beside(at(HERE), FailurePolicy::Closed);
        let mut answered = 0;
        first.stop();
        soon("a stream through the second agent", async {
            while second.carried() == 0 {
                // Between the second agent's rules and its first probe they are refused.
                answered += u64::from(exec(at(HERE)).await.is_ok());
            }
        })
        .await;
        first.ends().await;
        assert_eq!(answered, first.carried() + second.carried(), "while it was upgraded");

        second.relays(at(HERE)).await;
        second.hang();
        soon("the rules to expire", async {
            while exec(at(HERE)).await.is_ok() {
                answered += 1;
            }
        })
        .await;
        for _ in 0..200 {
            assert!(exec(at(HERE)).await.is_err(), "it went past an agent that hangs");
        }
        assert_eq!(answered, first.carried() + second.carried(), "until it was known to hang");

        second.kill_the_relay().await;
        for _ in 0..200 {
            assert!(exec(at(HERE)).await.is_err(), "it went past a dead agent");
        }
    });
}
