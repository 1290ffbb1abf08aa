//! The requests, against an apiserver that follows a script.

use std::time::Duration;

use http::Method;
use kube::Client;
use tokio::time::{Instant, sleep};

use super::scripted::Scripted;
use super::{Elector, Error, Leadership, LeaseSettings, Timing};
use crate::controller::metrics::Metrics;

fn elector(client: Client) -> (Elector<Metrics>, Metrics) {
    let metrics = Metrics::new();
    let settings = LeaseSettings {
        namespace: "sluice".to_owned(),
        name: "controller".to_owned(),
        identity: "us".to_owned(),
        timing: Timing::default(),
    };
    let elector = Elector::new(client, settings, metrics.clone()).unwrap();
    (elector, metrics)
}

async fn acquire(elector: &Elector<Metrics>) -> Leadership {
    elector.acquire(std::future::pending()).await.unwrap()
}

/// A leader whose Lease was just created.
async fn leader() -> (Leadership, Scripted, Metrics) {
    let (client, mut server) = Scripted::start();
    let (elector, metrics) = elector(client);
    let (leadership, ()) = tokio::join!(acquire(&elector), async {
        assert_eq!(server.serve().await, Method::GET);
        assert_eq!(server.serve().await, Method::POST);
    });
    (leadership, server, metrics)
}

#[tokio::test(start_paused = true)]
async fn creates_and_renews() {
    let start = Instant::now();
    let (mut leadership, mut server, _) = leader().await;
    assert_eq!(server.holder(), Some("us"));
    assert_eq!(server.transitions(), Some(0));
    let fence = leadership.fence();
    tokio::select! {
        error = leadership.lost() => panic!("{error}"),
        () = async {
            // One replace each, without a read.
            for _ in 0..50 {
                assert_eq!(server.serve().await, Method::PUT);
            }
        } => {}
    }
    assert!(fence.holds());
    let passed = start.elapsed();
    assert!(Duration::from_secs(100) <= passed, "{passed:?}");
    assert!(passed < Duration::from_secs(101), "{passed:?}");
    assert_eq!(server.transitions(), Some(0));
    drop(leadership);
    tokio::task::yield_now().await;
    assert!(!fence.holds());
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_holder_to_expire() {
    let (client, mut server) = Scripted::start();
    let (elector, _) = elector(client);
    server.held_by(Some("them"));
    let start = Instant::now();
    let (_leadership, ()) =
        tokio::join!(acquire(&elector), async { while server.serve().await != Method::PUT {} });
    let passed = start.elapsed();
    assert!(Duration::from_secs(15) <= passed, "{passed:?}");
    assert!(passed < Duration::from_secs(20), "{passed:?}");
    assert_eq!(server.holder(), Some("us"));
    assert_eq!(server.transitions(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_is_given_its_time_from_the_answer_on() {
    let (client, mut server) = Scripted::start();
    let (elector, _) = elector(client);
    let (_leadership, passed) = tokio::join!(acquire(&elector), async {
        let read = server.receive().await;
        // The holder renews while our read is on its way.
        sleep(Duration::from_millis(4_900)).await;
        server.held_by(Some("them"));
        let start = Instant::now();
        server.answer(read);
        while server.serve().await != Method::PUT {}
        start.elapsed()
    });
    assert!(Duration::from_secs(15) <= passed, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let (client, mut server) = Scripted::start();
    let (elector, _) = elector(client);
    server.held_by(None);
    let (_leadership, ()) = tokio::join!(acquire(&elector), async {
        assert_eq!(server.serve().await, Method::GET);
        assert_eq!(server.serve().await, Method::PUT);
    });
    assert_eq!(server.holder(), Some("us"));
}

#[tokio::test(start_paused = true)]
async fn never_forces_a_conflict() {
    let (client, mut server) = Scripted::start();
    let (elector, metrics) = elector(client);
    let (_leadership, ()) = tokio::join!(acquire(&elector), async {
        assert_eq!(server.serve().await, Method::GET);
        let create = server.receive().await;
        server.held_by(Some("them"));
        server.answer(create);
        assert_eq!(server.holder(), Some("them"));
        assert_eq!(server.serve().await, Method::GET);
        server.held_by(None);
        assert_eq!(server.serve().await, Method::GET);
        let replace = server.receive().await;
        assert_eq!(replace.method, Method::PUT);
        server.held_by(Some("third"));
        server.answer(replace);
        assert_eq!(server.holder(), Some("third"));
        assert_eq!(server.serve().await, Method::GET);
        server.held_by(None);
        while server.serve().await != Method::PUT {}
    });
    assert_eq!(server.holder(), Some("us"));
    assert!(!metrics.encode().unwrap().contains("sluice_errors_total{"));
}

#[tokio::test(start_paused = true)]
async fn errors_do_not_end_the_wait() {
    let (client, mut server) = Scripted::start();
    let (elector, metrics) = elector(client);
    let (_leadership, ()) = tokio::join!(acquire(&elector), async {
        server.receive().await.fail(503);
        server.hang().await;
        // Its answer is lost, but the Lease is ours and need not expire first.
        assert_eq!(server.serve().await, Method::GET);
        let create = server.receive().await;
        assert_eq!(server.apply(&create.method, &create.body), None);
        server.unanswered.push(create.respond);
        assert_eq!(server.serve().await, Method::GET);
        assert_eq!(server.serve().await, Method::PUT);
    });
    assert_eq!(server.transitions(), Some(0));
    let text = metrics.encode().unwrap();
    assert!(text.contains("sluice_errors_total{reason=\"LeaseRequest\"} 1\n"));
    assert!(text.contains("sluice_errors_total{reason=\"LeaseTimeout\"} 2\n"));
}

#[tokio::test(start_paused = true)]
async fn lost_after_the_renew_deadline_when_requests_fail() {
    let start = Instant::now();
    let (mut leadership, mut server, _) = leader().await;
    let fence = leadership.fence();
    let refusing = async {
        loop {
            server.receive().await.fail(500);
        }
    };
    let error = tokio::select! {
        error = leadership.lost() => error,
        () = refusing => unreachable!(),
    };
    let Error::Expired { last: Some(last) } = &error else {
        panic!("{error}");
    };
    assert_eq!(last.reason(), "LeaseRequest");
    let passed = start.elapsed();
    assert!(Duration::from_secs(10) <= passed, "{passed:?}");
    assert!(passed < Duration::from_millis(10_100), "{passed:?}");
    assert!(!fence.holds());
    assert_eq!(leadership.lost().await.reason(), "LeaseExpired");
}

#[tokio::test(start_paused = true)]
async fn lost_after_the_renew_deadline_when_nothing_answers() {
    let start = Instant::now();
    let (mut leadership, mut server, metrics) = leader().await;
    let silent = async {
        loop {
            server.hang().await;
        }
    };
    let error = tokio::select! {
        error = leadership.lost() => error,
        () = silent => unreachable!(),
    };
    assert_eq!(error.reason(), "LeaseExpired");
    let passed = start.elapsed();
    assert!(passed < Duration::from_millis(10_100), "{passed:?}");
    assert!(metrics.encode().unwrap().contains("{reason=\"LeaseTimeout\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_counts_from_the_request() {
    let (mut leadership, mut server, _) = leader().await;
    let renewal = server.receive().await;
    let sent = Instant::now();
    sleep(Duration::from_millis(4_900)).await;
    server.answer(renewal);
    let silent = async {
        loop {
            server.hang().await;
        }
    };
    tokio::select! {
        _ = leadership.lost() => {}
        () = silent => unreachable!(),
    }
    let passed = sent.elapsed();
    assert!(Duration::from_secs(10) <= passed, "{passed:?}");
    assert!(passed < Duration::from_millis(10_100), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn lost_at_once_when_another_holds_it() {
    let (mut leadership, mut server, _) = leader().await;
    server.held_by(Some("them"));
    let (error, ()) = tokio::join!(leadership.lost(), async {
        assert_eq!(server.serve().await, Method::PUT);
        assert_eq!(server.serve().await, Method::GET);
    });
    assert!(matches!(error, Error::Taken { holder } if holder == "them"));
}

#[tokio::test(start_paused = true)]
async fn a_touched_or_deleted_lease_is_kept() {
    let (mut leadership, mut server, _) = leader().await;
    tokio::select! {
        error = leadership.lost() => panic!("{error}"),
        () = async {
            // Somebody adds an annotation: another resourceVersion.
            let lease = server.lease.clone().unwrap();
            server.store(lease);
            assert_eq!(server.serve().await, Method::PUT);
            assert_eq!(server.serve().await, Method::GET);
            assert_eq!(server.serve().await, Method::PUT);
            server.lease = None;
            assert_eq!(server.serve().await, Method::PUT);
            assert_eq!(server.serve().await, Method::GET);
            assert_eq!(server.serve().await, Method::POST);
            assert_eq!(server.serve().await, Method::PUT);
        } => {}
    }
    assert_eq!(server.holder(), Some("us"));
}

#[tokio::test(start_paused = true)]
async fn release_empties_the_lease() {
    let (leadership, mut server, _) = leader().await;
    let fence = leadership.fence();
    let (released, ()) = tokio::join!(leadership.release(), async {
        assert_eq!(server.serve().await, Method::GET);
        assert!(!fence.holds());
        assert_eq!(server.serve().await, Method::PUT);
    });
    released.unwrap();
    assert_eq!(server.holder(), None);
    let spec = server.lease.unwrap().spec.unwrap();
    assert_eq!(spec.lease_duration_seconds, Some(1));
    assert_eq!(spec.lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn release_survives_a_late_renewal() {
    let (leadership, mut server, _) = leader().await;
    let renewal = server.receive().await;
    let (released, ()) = tokio::join!(leadership.release(), async {
        assert_eq!(server.serve().await, Method::GET);
        let release = server.receive().await;
        // The renewal that was on its way arrives first.
        assert_eq!(server.apply(&renewal.method, &renewal.body), None);
        server.answer(release);
        assert_eq!(server.holder(), Some("us"));
        assert_eq!(server.serve().await, Method::GET);
        assert_eq!(server.serve().await, Method::PUT);
    });
    released.unwrap();
    assert_eq!(server.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn release_leaves_anothers_lease_alone() {
    let (leadership, mut server, _) = leader().await;
    server.held_by(Some("them"));
    let (released, ()) = tokio::join!(leadership.release(), async {
        assert_eq!(server.serve().await, Method::GET);
    });
    released.unwrap();
    assert_eq!(server.holder(), Some("them"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_wait() {
    let (client, mut server) = Scripted::start();
    let (elector, _) = elector(client);
    server.held_by(Some("them"));
    let waiting = elector.acquire(sleep(Duration::from_secs(5)));
    let serving = async {
        loop {
            server.serve().await;
        }
    };
    let result = tokio::select! {
        result = waiting => result,
        () = serving => unreachable!(),
    };
    assert!(matches!(result, Err(Error::Shutdown)));
}

#[test]
fn settings_are_checked() {
    let timing = |lease, renew, retry| {
        Timing::new(
            Duration::from_millis(lease),
            Duration::from_millis(renew),
            Duration::from_millis(retry),
        )
    };
    assert_eq!(timing(15_000, 10_000, 2_000).unwrap(), Timing::default());
    for (lease, renew, retry) in [
        (15_000, 15_000, 2_000),
        (15_000, 2_400, 2_000),
        (15_000, 10_000, 0),
        (15_500, 10_000, 2_000),
    ] {
        let error = timing(lease, renew, retry).unwrap_err();
        assert_eq!(error.reason(), "LeaseSettings", "{lease} {renew} {retry}");
    }
}
