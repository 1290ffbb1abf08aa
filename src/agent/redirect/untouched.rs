//! In the place of all that: an agent that only tells how its kubelet is set, and has no right to the
//! runtime's socket or to the kernel's rules.

use std::time::Instant;

use tokio::time::Instant as Tick;

use super::{
    Attached, Channels, DETACH_GRACE, RENEW,
    state::{Failure, NO_RIGHTS, Standing, Want},
};
use crate::agent::claim::{Claim, Role};

/// Says so to whoever wants streams, until `stop` resolves and another agent has taken over or none
/// has come.
pub async fn run(
    channels: Channels,
    claim: Claim,
    turned: impl Fn(),
    stop: impl Future<Output = ()>,
) {
    let Channels { mut wishes, attached, standing, unattached, role, .. } = channels;
    let mut stop = std::pin::pin!(stop);
    let mut stopped: Option<Tick> = None;
    unattached.request();
    loop {
        if stopped.is_some() && claim.offer().await {
            role.send_replace(Role::Succeeded);
            tracing::info!("another agent has taken over");
            return;
        }
        if stopped.is_some_and(|at| at.elapsed() >= DETACH_GRACE) {
            return;
        }
        let now = told(Want::of(wishes.borrow_and_update().as_ref()));
        let outcome = now.judge(Instant::now());
        let found = Some(Attached { runtime: None, answers: None, trusted: None, outcome });
        standing.send_replace(now);
        attached.send_if_modified(|before| {
            let changed = *before != found;
            *before = found;
            changed
        });
        turned();
        tokio::select! {
            biased;
            () = &mut stop, if stopped.is_none() => stopped = Some(Tick::now()),
            Ok(()) = wishes.changed() => {}
            () = tokio::time::sleep(RENEW) => {}
        }
    }
}

fn told(want: Want) -> Standing {
    let message = "this agent was started for evidence alone, and may neither ask the runtime nor set \
                   rules; the controller replaces it by one that may";
    let failure = Failure { reason: NO_RIGHTS, message: message.to_owned() };
    Standing { failure: Some(failure), ..Standing::new(want) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{
        agent::{kubelet::Kubelet, redirect::state::Streams},
        api::{FailurePolicy, Proxy},
        process::shutdown::Shutdown,
    };

    #[tokio::test(start_paused = true)]
    async fn streams_are_left_alone_whatever_is_wished() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::wait(folder.path()).await.unwrap();
        let (wishing, wishes) = watch::channel(None);
        let (attaching, mut attached) = watch::channel(None);
        let (standing, _stands) = watch::channel(Standing::new(Want::Nothing));
        let (_kubelets, kubelet) = watch::channel(Kubelet::default());
        let (roles, role) = watch::channel(Role::Acting);
        let (unattached, _taking) = Shutdown::triggered();
        let channels =
            Channels { wishes, kubelet, attached: attaching, standing, unattached, role: roles };
        let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(run(channels, claim, || (), async {
            let _ = stopping.await;
        }));
        let mut said = async || {
            attached.changed().await.unwrap();
            let found = attached.borrow_and_update().clone().unwrap();
            assert_eq!((found.runtime, found.answers), (None, None));
            (found.outcome.streams, found.outcome.reason)
        };
        assert_eq!(said().await, (Streams::Direct, "NotWanted"));
        let closed = Proxy { failure_policy: FailurePolicy::Closed, ..Proxy::default() };
        wishing.send_replace(Some(closed));
        assert_eq!(said().await, (Streams::Direct, NO_RIGHTS));
        // Nobody comes, and what it has said is its own to take away.
        stop.send(()).unwrap();
        tokio::time::timeout(DETACH_GRACE * 2, running).await.unwrap().unwrap();
        assert_eq!(*role.borrow(), Role::Acting);
    }
}
