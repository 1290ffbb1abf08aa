use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// What a flow wants.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// Always more; at each turn so much is there, in eighths of a quantum.
    All(u64),
    /// A few bytes now and then.
    Little { bytes: u64, every: Duration },
}

/// A flow that is played.
#[derive(Debug)]
struct Player {
    want: Want,
    flow: Flow,
    /// What it still wants to move this time, and since when.
    left: u64,
    since: Duration,
    moved: u64,
    /// How long something of it has waited at most.
    longest: Duration,
}

/// Flows that share a rate, on a clock that is late after each wait.
struct Play {
    share: Share<usize>,
    rate: u64,
    start: Instant,
    now: Duration,
    late: Duration,
    players: Vec<Player>,
    /// Who asks when.
    asks: BTreeSet<(Duration, usize)>,
    moves: Vec<(Duration, u64)>,
}

impl Play {
    fn new(rate: u64, wants: impl IntoIterator<Item = Want>) -> Self {
        let start = Instant::now();
        let mut play = Self {
            share: Share::new(rate, start),
            rate,
            start,
            now: Duration::ZERO,
            late: Duration::ZERO,
            players: Vec::new(),
            asks: BTreeSet::new(),
            moves: Vec::new(),
        };
        wants.into_iter().for_each(|want| play.join(want));
        play
    }

    fn join(&mut self, want: Want) {
        let since = self.now;
        self.asks.insert((since, self.players.len()));
        let left = match want {
            Want::All(_) => u64::MAX,
            Want::Little { bytes, .. } => bytes,
        };
        let flow = Flow::default();
        let longest = Duration::ZERO;
        self.players.push(Player { want, flow, left, since, moved: 0, longest });
    }

    /// As long as a quantum takes.
    fn quantum(&self) -> Duration {
        Duration::from_secs_f64(self.share.quantum() as f64 / self.rate as f64)
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            while let Some((_, id)) = self.asks.first().copied().filter(|(at, _)| *at <= self.now) {
                self.asks.pop_first();
                let player = &self.players[id];
                let most = 1 << 20;
                self.share.ask(&player.flow, most, id);
            }
            let asks = self.asks.first().map_or(end, |(at, _)| *at);
            match self.share.next(self.start + self.now) {
                Next::Turn(id, turn) => self.turn(id, turn),
                Next::Wait(wait) => self.now = asks.min(self.now + wait + self.late),
                Next::Nobody => self.now = asks,
            }
        }
    }

    fn turn(&mut self, id: usize, turn: Turn) {
        let quantum = self.share.quantum();
        let player = &mut self.players[id];
        let there = match player.want {
            Want::All(eighths) => (eighths * quantum / 8).max(1),
            Want::Little { .. } => player.left,
        };
        let moved = turn.bytes.min(there);
        self.share.end(&mut player.flow, turn, moved);
        player.moved += moved;
        player.left -= moved;
        self.moves.push((self.now, moved));
        if let Want::Little { bytes, every } = player.want
            && player.left == 0
        {
            player.longest = player.longest.max(self.now - player.since);
            player.since = self.now.max(player.since + every);
            player.left = bytes;
            self.asks.insert((player.since, id));
        } else {
            self.asks.insert((self.now, id));
        }
    }

    /// The least and the most that anybody has moved of these.
    fn extremes(&self, players: std::ops::Range<usize>) -> (u64, u64) {
        let moved = || self.players[players.clone()].iter().map(|player| player.moved);
        (moved().min().unwrap(), moved().max().unwrap())
    }

    fn longest_wait(&self) -> Duration {
        self.players.iter().map(|player| player.longest).max().unwrap()
    }
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        (1..9_u64).prop_map(Want::All),
        (1..100 * KIB, 1..500_u64)
            .prop_map(|(bytes, ms)| Want::Little { bytes, every: Duration::from_millis(ms) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_the_rate_and_one_burst(
        rate in 1024..GIB,
        wants in prop::collection::vec(want(), 1..30),
        late in 0..50_u64,
    ) {
        let mut play = Play::new(rate, wants);
        play.late = Duration::from_millis(late);
        play.run(Duration::from_millis(500));
        let burst = (u128::from(rate) * 35 / 1000).max(256);
        let mut sum = 0;
        for (at, bytes) in &play.moves {
            sum += u128::from(*bytes);
            let most = u128::from(rate) * at.as_nanos() / 1_000_000_000 + burst + 1;
            prop_assert!(sum <= most, "{sum} of {most} after {at:?}");
        }
    }

    #[test]
    fn who_always_wants_more_gets_as_much_as_the_others(
        rate in 16 * KIB..GIB,
        eighths in prop::collection::vec(1..9_u64, 2..40),
        late in 0..10_u64,
    ) {
        let count = eighths.len();
        let mut play = Play::new(rate, eighths.into_iter().map(Want::All));
        play.late = Duration::from_millis(late);
        let time = play.quantum() * 50 * u32::try_from(count).unwrap();
        play.run(time);
        let (least, most) = play.extremes(0..count);
        prop_assert!(most - least <= 3 * play.share.quantum(), "{least} to {most}");
        let sum: u64 = play.players.iter().map(|player| player.moved).sum();
        let all = rate as f64 * play.now.as_secs_f64();
        prop_assert!(sum as f64 >= 0.99 * all, "{sum} of {all}");
    }

    #[test]
    fn who_wants_little_waits_for_those_alone_that_want_little(
        rate in 64 * KIB..GIB,
        greedy in 0..300_usize,
        sparse in 1..10_usize,
        bytes in 1..200_u64,
    ) {
        // Not more than its part: the rest of it would be a greedy flow's.
        let part = Duration::from_secs_f64(bytes as f64 * (greedy + sparse) as f64 / rate as f64);
        let every = Duration::from_millis(20).max(part * 11 / 10);
        let mut play = Play::new(rate, vec![Want::All(8); greedy]);
        // Until it is known of each.
        play.run(play.quantum() * u32::try_from(greedy).unwrap());
        (0..sparse).for_each(|_| play.join(Want::Little { bytes, every }));
        play.run(Duration::from_secs(2).max(4 * every));
        let most = QUANTUM + play.quantum() * u32::try_from(sparse + 1).unwrap();
        let longest = play.longest_wait();
        prop_assert!(longest <= most, "{longest:?} of {most:?}");
    }

    #[test]
    fn who_has_waited_in_vain_leaves_nothing_behind(
        rate in prop_oneof![Just(0), 1024..GIB],
        steps in prop::collection::vec((0..4_u8, 0..20_usize, 0..30_u64), 1..300),
    ) {
        let start = Instant::now();
        let (mut now, mut share) = (start, Share::<usize>::new(rate, start));
        let mut flows: Vec<(Flow, Option<Slot>)> = vec![(Flow::default(), None); 20];
        for (step, id, ms) in steps {
            now += Duration::from_millis(ms);
            let (flow, place) = &mut flows[id];
            match step {
                0 => {
                    if let Some(place) = place.take() {
                        share.leave(place);
                    }
                }
                1 => if let Next::Turn(id, turn) = share.next(now) {
                    let (flow, place) = &mut flows[id];
                    *place = None;
                    share.end(flow, turn, turn.bytes);
                },
                2 => if let Next::Turn(id, turn) = share.next(now) {
                    flows[id].1 = None;
                    share.give_back(turn);
                },
                _ => if place.is_none() {
                    *place = Some(share.ask(flow, KIB, id));
                },
            }
        }
        for place in flows.iter_mut().filter_map(|(_, place)| place.take()) {
            share.leave(place);
        }
        prop_assert!(matches!(share.next(now), Next::Nobody));
        prop_assert!(share.line.is_empty());
        // The next one finds all that there ever is.
        share.ask(&Flow::default(), KIB, 0);
        let full = share.next(now + Duration::from_secs(1));
        let most = (share.quantum() / PARTS).min(KIB);
        let most = if rate == 0 { most } else { most.min((rate * 35 / 1000).max(256)) };
        prop_assert!(matches!(full, Next::Turn(0, turn) if turn.bytes == most), "{full:?}");
    }
}

#[test]
fn a_thousand_that_always_want_more_hold_up_nobody_who_wants_little() {
    for rate in [64 * KIB, 100 * KIB * KIB] {
        let echo = Want::Little { bytes: 1, every: Duration::from_millis(50) };
        let mut play = Play::new(rate, vec![Want::All(8); 1000]);
        // Until it is known of each.
        play.run(play.quantum() * 1000);
        play.join(echo);
        play.run(Duration::from_secs(20));
        let longest = play.longest_wait();
        assert!(longest <= QUANTUM + play.quantum(), "{rate} B/s: {longest:?}");
    }
}

#[test]
fn those_that_are_new_and_want_all_hold_up_others_once() {
    let mut play = Play::new(64 * KIB, vec![Want::All(8); 1000]);
    // Each has its first turn, which is less than a quantum.
    play.run(play.quantum() * 500);
    assert!(play.players.iter().all(|player| player.moved > 0));
    assert_eq!(play.share.round, ROUND);
    play.join(Want::Little { bytes: 1, every: Duration::from_millis(50) });
    play.run(Duration::from_secs(2));
    let longest = play.longest_wait();
    assert!(longest <= QUANTUM + play.quantum(), "{longest:?}");
}

#[test]
fn ever_new_flows_do_not_starve_those_that_wait() {
    let mut play = Play::new(64 * KIB, [Want::All(8)]);
    play.run(Duration::from_secs(1));
    let before = play.players[0].moved;
    // Each has all that a sparse flow may have, and is gone: more than the rate in all.
    for _ in 0..1_000 {
        let once = Want::Little { bytes: KIB, every: Duration::from_secs(1_000) };
        play.join(once);
        play.run(Duration::from_millis(10));
    }
    let part = (play.players[0].moved - before) as f64 / (10.0 * 64.0 * KIB as f64);
    assert!(part >= 0.5 / (AHEAD + 1) as f64, "it has had {part} of the rate");
}

#[test]
fn what_was_moved_at_another_rate_is_no_debt() {
    let mut play = Play::new(GIB, [Want::All(8)]);
    play.run(Duration::from_secs(1));
    play.rate = 64 * KIB;
    play.share.set_rate(play.rate, play.start + play.now);
    let before = play.players[0].moved;
    play.join(Want::All(8));
    play.run(Duration::from_secs(10));
    let (first, second) = (play.players[0].moved - before, play.players[1].moved);
    assert!(first.abs_diff(second) <= 3 * play.share.quantum(), "{first} and {second}");
}

#[test]
fn what_was_taken_without_a_limit_is_not_given_back() {
    let start = Instant::now();
    let mut share = Share::new(0, start);
    let mut flow = Flow::default();
    share.ask(&flow, KIB, ());
    let Next::Turn((), turn) = share.next(start) else { panic!("there is no limit") };
    share.set_rate(64 * KIB, start);
    share.end(&mut flow, turn, 0);
    share.ask(&flow, KIB, ());
    assert!(matches!(share.next(start), Next::Wait(_)));
}
