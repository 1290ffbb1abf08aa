use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio::time::sleep;

use super::*;

const KIB: u64 = 1 << 10;

fn limiter(connection: u64, node: u64) -> SharedLimiter {
    let limiter = SharedLimiter::new(now());
    limiter.set(Limits { connection, node });
    limiter
}

/// Polls once.
fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Takes all that may move now, and tells how much it was.
fn drain(meter: &mut Meter<'_>) -> usize {
    let mut sum = 0;
    loop {
        let Poll::Ready(allowed) = poll(pin!(meter.allowance())) else { return sum };
        meter.moved(allowed, allowed.bytes);
        sum += allowed.bytes;
    }
}

/// Always wants more.
async fn greedy(limiter: Arc<SharedLimiter>) {
    let mut meter = Meter::new(&limiter);
    loop {
        let allowed = meter.allowance().await;
        meter.moved(allowed, allowed.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nobody_stands_in_line() {
    let limiter = limiter(0, 0);
    let mut meter = Meter::new(&limiter);
    let allowed = meter.allowance().await;
    assert!(allowed.bytes == MOVE_MAX && allowed.turn.is_none(), "{allowed:?}");
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_and_is_not_polled_any_more_holds_up_nobody() {
    let limiter = limiter(0, KIB * KIB);
    let (mut first, mut second) = (Meter::new(&limiter), Meter::new(&limiter));
    drain(&mut first);
    let mut waits = pin!(first.allowance());
    assert!(poll(waits.as_mut()).is_pending());
    let asked = now();
    for _ in 0..100 {
        let allowed = timeout(Duration::from_secs(10), second.allowance()).await.unwrap();
        second.moved(allowed, allowed.bytes);
    }
    // A hundred milliseconds' worth, and a bit.
    assert!(now() - asked <= Duration::from_millis(120), "{:?}", now() - asked);
    assert!(poll(waits).is_ready(), "its own turn has come as well");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_came_too_late_is_given_back() {
    let mut left = Vec::new();
    for late in [false, true] {
        let limiter = limiter(0, KIB * KIB);
        let mut meter = Meter::new(&limiter);
        drain(&mut meter);
        {
            let mut waits = pin!(meter.allowance());
            assert!(poll(waits.as_mut()).is_pending());
            if late {
                // Its turn comes, and it is not there to take it.
                sleep(Duration::from_millis(20)).await;
            }
        }
        if !late {
            sleep(Duration::from_millis(20)).await;
        }
        left.push(drain(&mut Meter::new(&limiter)));
    }
    assert_eq!(left[0], left[1]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_little_does_not_wait_for_a_thousand_that_want_all() {
    for node in [64 * KIB, 10 * KIB * KIB] {
        let limiter = Arc::new(limiter(0, node));
        let tasks: Vec<_> = (0..1000).map(|_| tokio::spawn(greedy(Arc::clone(&limiter)))).collect();
        // Each of them has its quantum first.
        sleep(Duration::from_secs(20)).await;
        let mut meter = Meter::new(&limiter);
        for _ in 0..20 {
            let asked = now();
            let allowed = meter.allowance().await;
            meter.moved(allowed, 1);
            // One quantum is 16 ms at the slower rate.
            assert!(now() - asked <= Duration::from_millis(40), "{node} B/s: {:?}", now() - asked);
            sleep(Duration::from_millis(50)).await;
        }
        assert!(tasks.iter().all(|task| !task.is_finished()));
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sleeps_sees_a_new_limit_at_once() {
    for connection in [0, KIB * KIB * KIB] {
        let limiter = limiter(KIB, 0);
        let mut meter = Meter::new(&limiter);
        // Seventeen minutes' worth.
        meter.owe(MOVE_MAX);
        let changed = async {
            sleep(Duration::from_secs(1)).await;
            limiter.set(Limits { connection, node: 0 });
            now()
        };
        let (_, changed) = tokio::join!(meter.allowance(), changed);
        assert!(now() - changed <= Duration::from_millis(20), "{:?}", now() - changed);
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_stand_in_line_see_a_new_limit_at_once() {
    for node in [0, KIB * KIB * KIB] {
        let limiter = Arc::new(limiter(0, KIB));
        let mut meters: Vec<_> = (0..10).map(|_| Meter::new(&limiter)).collect();
        for meter in &mut meters {
            drain(meter);
        }
        let changed = async {
            sleep(Duration::from_millis(1)).await;
            limiter.set(Limits { connection: 0, node });
            now()
        };
        let all = futures::future::join_all(meters.iter_mut().map(Meter::allowance));
        let (_, changed) = tokio::join!(all, changed);
        assert!(now() - changed <= Duration::from_millis(20), "{:?}", now() - changed);
    }
}
