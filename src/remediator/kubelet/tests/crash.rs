//! A remediator that dies at any step: both files and the running kubelet are of one kind.

use proptest::prelude::*;

use super::*;
use crate::remediator::file::fault::{Fault, died, script};

const FLAGGED: &str = "KUBELET_EXTRA_ARGS=--redirect-container-streaming=true\n";

/// A story of turns, each with the step at which the remediator dies in it, and of what is wanted.
async fn tell(turns: &[(Option<usize>, Wish)]) -> (Node, FakeSystemd) {
    let (node, systemd) =
        node_with(&[(KUBEADM, KUBEADM_TEXT), (DROP_IN, DROP_IN_TEXT), (DEFAULT, FLAGGED)]);
    let change = change("a", KIND);
    let mut alive = None;
    for (death, wish) in turns {
        let desired = match wish {
            Wish::Confirmed if node.said().starts_with("Applied") => confirms(&change),
            Wish::This | Wish::Confirmed => wants(&change),
            Wish::Nothing => NOTHING_WANTED,
        };
        let mut executor = alive.take().unwrap_or_else(|| remediator(&node, &systemd));
        script(death.map_or(Fault::None, Fault::Death));
        // What cannot be done is tried again.
        let _ = executor.turn(&desired).await;
        if !died() {
            alive = Some(executor);
        }
        script(Fault::None);
        advance(1);
    }
    advance(400);
    settle(&mut remediator(&node, &systemd), &wants(&change)).await;
    let (old, new) = (node.read(KUBEADM) == KUBEADM_TEXT, node.read(DEFAULT) == FLAGGED);
    assert_eq!(old, new, "one file is old, and one is new");
    assert_eq!(runs_with_flag(&node), old, "the kubelet runs as its files do not say");
    let confirmed = node.said() == "Confirmed Confirmed";
    assert_eq!(confirmed, !old, "{}", node.said());
    assert_eq!(node.names_beside(KUBEADM), ["kubeadm-flags.env"]);
    assert_eq!(node.names_beside(DEFAULT), ["kubelet"]);
    (node, systemd)
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    This,
    Confirmed,
    Nothing,
}

#[tokio::test]
async fn a_death_at_each_step_in_turn() {
    let (mut confirmed, mut back) = (0, 0);
    for turn in 0..6 {
        for steps in 0..24 {
            let mut way = [(None, Wish::Confirmed); 12];
            way[turn].0 = Some(steps);
            let (node, _) = tell(&way).await;
            match node.said().as_str() {
                "Confirmed Confirmed" => confirmed += 1,
                _ => back += 1,
            }
        }
    }
    // There is time enough to go on.
    assert_eq!((confirmed, back), (144, 0));
}

proptest! {
    // Each of them waits for the disk a hundred times.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn it_ends_in_the_old_state_or_in_the_new_one(
        turns in prop::collection::vec(
            (
                prop_oneof![Just(None), (0usize..24).prop_map(Some)],
                prop::sample::select(vec![Wish::This, Wish::This, Wish::Confirmed, Wish::Nothing]),
            ),
            1..20,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tell(&turns));
    }
}
