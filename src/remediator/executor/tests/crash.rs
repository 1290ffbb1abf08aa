//! Whatever dies at whatever step, and whatever is wanted: the old state or the new one.

use proptest::prelude::*;

use super::*;
use crate::remediator::{
    file::fault::died,
    gate::ApiserverGate,
    guard::Heartbeat,
    test_support::{Answers, now},
};

/// What happens to the node next.
#[derive(Clone, Debug)]
enum Event {
    /// The remediator turns, and dies after so many steps on the disk, or does not.
    Remediator(Option<usize>),
    /// The guard looks, and dies likewise.
    Guard(Option<usize>),
    /// Time passes, in seconds.
    Time(i64),
    /// This is wanted from now on.
    Desired(Wish),
    /// The apiserver is there, or is not.
    Apiserver(bool),
    /// The disk is full, or is not.
    Full(bool),
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Unknown,
    Nothing,
    This,
    Confirmed,
    Another,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let death = || prop_oneof![1 => Just(None), 3 => (0usize..24).prop_map(Some)];
    let wishes =
        vec![Wish::Unknown, Wish::Nothing, Wish::This, Wish::This, Wish::Confirmed, Wish::Another];
    let event = prop_oneof![
        6 => death().prop_map(Event::Remediator),
        4 => death().prop_map(Event::Guard),
        2 => (0i64..70).prop_map(Event::Time),
        2 => prop::sample::select(wishes).prop_map(Event::Desired),
        1 => any::<bool>().prop_map(Event::Apiserver),
        1 => any::<bool>().prop_map(Event::Full),
    ];
    prop::collection::vec(event, 1..40)
}

struct Story {
    node: Node,
    remediator: Option<Executor<ApiserverGate, Answers>>,
    change: Change,
    desired: DesiredChange,
    full: bool,
    ended: Option<(String, Stage)>,
}

impl Story {
    fn new() -> Self {
        fresh();
        let change = change("a", GATE);
        let desired = wants(&change);
        Self { node: Node::new(), remediator: None, change, desired, full: false, ended: None }
    }

    async fn happen(&mut self, event: &Event) {
        match event {
            Event::Remediator(death) => self.remediator(*death).await,
            Event::Guard(death) => self.guard(*death).await,
            Event::Time(seconds) => advance(*seconds),
            Event::Desired(wish) => self.want(*wish),
            Event::Apiserver(there) => self.node.answers.reach(*there),
            Event::Full(full) => self.full = *full,
        }
        self.check();
    }

    fn want(&mut self, wish: Wish) {
        self.desired = match wish {
            Wish::Unknown => DesiredChange::Nothing,
            Wish::Nothing => NOTHING_WANTED,
            // The controller confirms what was reported as made, and nothing else.
            Wish::Confirmed if self.node.said().starts_with("Applied") => confirms(&self.change),
            Wish::This | Wish::Confirmed => wants(&self.change),
            Wish::Another => wants(&change("b", GATE)),
        };
    }

    fn fault(&self, death: Option<usize>) {
        script(match death {
            Some(steps) => Fault::Death(steps),
            None if self.full => Fault::Full,
            None => Fault::None,
        });
    }

    async fn remediator(&mut self, death: Option<usize>) {
        let (armed, before) = (self.is_armed(), self.node.read(MANIFEST));
        let journal = self.node.journal(GATE);
        let mut remediator = self.remediator.take().unwrap_or_else(|| self.node.gate_remediator());
        self.fault(death);
        // What cannot be done is tried again.
        let _ = remediator.turn(&self.desired).await;
        if !died() {
            self.remediator = Some(remediator);
        }
        script(Fault::None);
        if before == ORIGINAL && self.node.read(MANIFEST) != ORIGINAL {
            let journal = journal.unwrap();
            assert!(armed, "changed without a guard");
            assert!(!journal.is_overdue(now()), "changed after the deadline");
            let wanted = self.desired.wanted();
            assert!(matches!(wanted, step::Desired::Change(change) if change.id == journal.id));
        }
    }

    async fn guard(&mut self, death: Option<usize>) {
        let Some(guard) = self.node.guard() else { return };
        let before = self.node.read(MANIFEST);
        self.fault(death);
        let turned = guard.turn().await;
        let alive = !died() && turned.is_ok();
        script(Fault::None);
        let after = self.node.read(MANIFEST);
        assert!(after == before || after == ORIGINAL, "the guard only puts back");
        let journal = self.node.journal(GATE).filter(|journal| alive && !journal.is_ended());
        if let Some(journal) = journal {
            assert!(!journal.is_overdue(now()), "kept past the deadline");
        }
    }

    fn is_armed(&self) -> bool {
        let journal = self.node.journal(GATE);
        let armed = Heartbeat::read(self.node.store(GATE).folder());
        self.node.guard_is_placed()
            && journal.zip(armed).is_some_and(|(journal, armed)| armed.watches(&journal.id, now()))
    }

    /// What holds at every moment, also right after a death.
    fn check(&mut self) {
        let manifest = self.node.read(MANIFEST);
        let changed = manifest.contains("StreamingProxyRedirects=false");
        assert!(manifest == ORIGINAL || changed, "between: {manifest}");
        let Some(journal) = self.node.journal(GATE) else {
            assert!(!changed);
            return;
        };
        match journal.stage {
            Stage::Confirmed if !journal.files.is_empty() => assert!(changed),
            Stage::Ended(_) if journal.earlier.is_empty() => assert!(!changed),
            _ => {}
        }
        // An end is one.
        if let Some((id, stage)) = &self.ended
            && journal.id == *id
        {
            assert_eq!(journal.stage, *stage);
        }
        self.ended = Some((journal.id, journal.stage))
            .filter(|_| matches!(journal.stage, Stage::Confirmed | Stage::Ended(_)));
    }

    /// Everything works again, and the deadline passes.
    async fn heal(&mut self) {
        self.full = false;
        self.happen(&Event::Apiserver(true)).await;
        for _ in 0..12 {
            self.happen(&Event::Remediator(None)).await;
            self.happen(&Event::Guard(None)).await;
        }
        advance(400);
        for _ in 0..12 {
            self.happen(&Event::Guard(None)).await;
            self.happen(&Event::Remediator(None)).await;
        }
        if let Some(journal) = self.node.journal(GATE) {
            assert!(journal.is_ended(), "{journal:?}");
        }
        assert!(is_tidy(&self.node), "{:?}", self.node.names_beside(MANIFEST));
    }
}

fn tell(events: &[Event]) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut story = Story::new();
        for event in events {
            story.happen(event).await;
        }
        story.heal().await;
        story
    })
}

proptest! {
    // Each of them waits for the disk a hundred times.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn it_ends_in_the_old_state_or_in_the_new_one(events in events()) {
        tell(&events);
    }
}

/// The same for each step of each act of one change, without chance.
#[test]
fn a_death_at_each_step_in_turn() {
    let (remediator, guard) = (Event::Remediator(None), Event::Guard(None));
    let way = [
        remediator.clone(),
        remediator.clone(),
        guard.clone(),
        remediator.clone(),
        Event::Desired(Wish::Confirmed),
        remediator.clone(),
        remediator,
    ];
    let is_confirmed = |story: &Story| story.node.said() == "Confirmed Confirmed";
    assert!(is_confirmed(&tell(&way)));
    let (mut confirmed, mut back) = (0, 0);
    for (index, event) in way.iter().enumerate() {
        for steps in 0..24 {
            let dying = match event {
                Event::Remediator(_) => Event::Remediator(Some(steps)),
                Event::Guard(_) => Event::Guard(Some(steps)),
                _ => break,
            };
            let mut events = way.to_vec();
            events[index] = dying;
            // Whoever has died is started again, and goes on.
            events.insert(index + 1, event.clone());
            let story = tell(&events);
            if is_confirmed(&story) {
                confirmed += 1;
            } else {
                back += 1;
                assert!(story.node.said().starts_with("RolledBack"), "{index} {steps}");
                assert_eq!(story.node.read(MANIFEST), ORIGINAL, "{index} {steps}");
            }
        }
    }
    // Most of them go on to the end; a guard's death costs the turn in which it was to arm.
    assert!(confirmed > 100, "{confirmed} confirmed, {back} back");
}
