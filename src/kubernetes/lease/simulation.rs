//! Candidates with clocks of their own against one simulated Lease, over a
//! network that loses, delays and overtakes: at no instant may two of them
//! believe that they hold it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::Timing;
use super::candidate::{Candidate, Step, holder, released};

/// True time, in milliseconds.
type Time = u64;

/// What happens to one request and its answer.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// How long the request travels: it may outlive its sender's patience.
    there: Time,
    /// How long the answer travels; None: it is lost.
    back: Option<Time>,
    /// How long the receiver stands still with the answer in hand.
    stall: Time,
    /// How the sender's next pause is stretched: 0 to 1.
    jitter: f64,
    /// What else befalls the sender before its next attempt.
    whim: Whim,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Whim {
    None,
    /// The process is replaced by one that knows nothing.
    Restart,
    /// The holder gives the Lease back and applies again.
    Release,
}

/// A time during which one candidate hears nothing.
#[derive(Clone, Copy, Debug)]
struct Outage {
    candidate: usize,
    from: Time,
    length: Time,
    /// Whether its requests still arrive, and only the answers are lost.
    one_way: bool,
}

#[derive(Clone, Debug)]
struct Scenario {
    /// How fast each candidate's clock runs.
    rates: Vec<f64>,
    fates: Vec<Fate>,
    outages: Vec<Outage>,
}

#[derive(Clone, Debug)]
enum Request {
    Get,
    Create(LeaseSpec),
    Replace(u64, LeaseSpec),
}

/// The Lease as a write or a read left it, or None: 404 to a read, 409 to a write.
type Answer = Option<(u64, LeaseSpec)>;

enum Event {
    Wake,
    Arrival(u64, Request, Option<Time>, Time),
    Answer(u64, Answer, Time),
    Handled(u64, Answer),
    Timeout(u64),
}

struct Pending {
    id: u64,
    request: Request,
    started: Instant,
    answered: bool,
}

struct Process {
    candidate: Candidate,
    written: Option<(u64, LeaseSpec)>,
    pending: Option<Pending>,
    releasing: bool,
    rate: f64,
    jitter: f64,
    whim: Whim,
}

struct World {
    scenario: Scenario,
    timing: Timing,
    origin: Instant,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: std::collections::HashMap<u64, (usize, Event)>,
    next: u64,
    fate: usize,
    version: u64,
    lease: Option<(u64, LeaseSpec)>,
    processes: Vec<Process>,
    /// Who was seen to lead, one entry for each change.
    leaders: Vec<(Time, usize)>,
}

fn identity(index: usize) -> String {
    format!("candidate-{index}")
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let timing = Timing::default();
        let processes = scenario.rates.iter().enumerate().map(|(index, rate)| Process {
            candidate: Candidate::new(identity(index), timing),
            written: None,
            pending: None,
            releasing: false,
            rate: *rate,
            jitter: 0.0,
            whim: Whim::None,
        });
        let mut world = Self {
            processes: processes.collect(),
            timing,
            origin: Instant::now(),
            now: 0,
            queue: BinaryHeap::new(),
            events: std::collections::HashMap::new(),
            next: 0,
            fate: 0,
            version: 0,
            lease: None,
            leaders: Vec::new(),
            scenario,
        };
        for index in 0..world.processes.len() {
            world.after(index as u64, index, Event::Wake);
        }
        world
    }

    fn after(&mut self, delay: Time, process: usize, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + delay, self.next)));
        self.events.insert(self.next, (process, event));
    }

    /// What the process's own monotonic clock says.
    fn local(&self, process: usize) -> Instant {
        let rate = self.processes[process].rate;
        // The machines were started at different times, too.
        let origin = self.origin + Duration::from_secs(1000 * process as u64);
        origin + Duration::from_millis(self.now).mul_f64(rate)
    }

    /// True milliseconds in which the process's clock advances by `local`.
    fn lasting(&self, process: usize, local: Duration) -> Time {
        (local.as_secs_f64() * 1000.0 / self.processes[process].rate).ceil() as Time
    }

    /// Wall clocks differ by hours and do not matter.
    fn wall(&self, process: usize) -> Timestamp {
        let offset = SignedDuration::from_hours(process as i64 * 7 - 7);
        Timestamp::from_millisecond(self.now as i64 + 1_000_000_000_000).unwrap() + offset
    }

    fn fate(&mut self, process: usize) -> Fate {
        self.fate += 1;
        let mut fate = self.scenario.fates[self.fate % self.scenario.fates.len()];
        for outage in &self.scenario.outages {
            let during = (outage.from..outage.from + outage.length).contains(&self.now);
            if outage.candidate == process && during {
                fate.back = None;
                if !outage.one_way {
                    // Arrives when the outage is over, if ever.
                    fate.there += outage.from + outage.length - self.now;
                }
            }
        }
        fate
    }

    fn send(&mut self, process: usize, request: Request) {
        let fate = self.fate(process);
        self.next += 1;
        let id = self.next;
        let state = &mut self.processes[process];
        state.jitter = fate.jitter;
        state.whim = fate.whim;
        let started = self.local(process);
        self.processes[process].pending =
            Some(Pending { id, request: request.clone(), started, answered: false });
        self.after(fate.there, process, Event::Arrival(id, request, fate.back, fate.stall));
        let patience = self.lasting(process, self.timing.request_timeout());
        self.after(patience, process, Event::Timeout(id));
    }

    /// The apiserver: optimistic locking on one object.
    fn serve(&mut self, request: Request) -> Answer {
        let spec = match (request, &self.lease) {
            (Request::Get, lease) => return lease.clone(),
            (Request::Create(spec), None) => spec,
            (Request::Replace(version, spec), Some((current, _))) if version == *current => spec,
            _ => return None,
        };
        self.version += 1;
        self.lease = Some((self.version, spec));
        self.lease.clone()
    }

    /// Begins an attempt, as `Claim::attempt` does.
    fn attempt(&mut self, index: usize) {
        let now = self.local(index);
        let wall = self.wall(index);
        let timing = self.timing;
        let process = &mut self.processes[index];
        let holding = process.candidate.holds(now);
        match std::mem::replace(&mut process.whim, Whim::None) {
            Whim::Restart => {
                process.candidate = Candidate::new(identity(index), timing);
                process.written = None;
            }
            Whim::Release if holding => {
                process.candidate = Candidate::new(identity(index), timing);
                process.written = None;
                process.releasing = true;
            }
            _ => {}
        }
        let process = &mut self.processes[index];
        let request = match process.written.take() {
            Some((version, _)) if process.candidate.holds(now) => {
                Request::Replace(version, process.candidate.claim(wall))
            }
            _ => Request::Get,
        };
        self.send(index, request);
    }

    fn pause(&mut self, index: usize) {
        self.processes[index].releasing = false;
        let stretch = if self.processes[index].candidate.holds(self.local(index)) {
            0.0
        } else {
            super::JITTER * self.processes[index].jitter
        };
        let pause = self.timing.retry_period().mul_f64(1.0 + stretch);
        let delay = self.lasting(index, pause);
        self.after(delay, index, Event::Wake);
    }

    fn handled(&mut self, index: usize, pending: Pending, answer: Answer) {
        let now = self.local(index);
        let wall = self.wall(index);
        let process = &mut self.processes[index];
        if process.releasing {
            match (pending.request, answer) {
                (Request::Get, Some((version, spec)))
                    if holder(&spec) == Some(&identity(index)) =>
                {
                    self.send(index, Request::Replace(version, released(&spec, wall)));
                }
                _ => self.pause(index),
            }
            return;
        }
        match pending.request {
            Request::Get => {
                let spec = answer.as_ref().map(|(_, spec)| spec.clone());
                process.candidate.saw(spec, now);
                let claim = process.candidate.claim(wall);
                let request = match (process.candidate.step(now), answer) {
                    (Step::Wait { .. }, _) => return self.pause(index),
                    (Step::Create, None) => Request::Create(claim),
                    (_, Some((version, _))) => Request::Replace(version, claim),
                    step => panic!("{step:?}"),
                };
                self.send(index, request);
            }
            Request::Create(_) | Request::Replace(..) => match answer {
                Some((version, spec)) => {
                    process.candidate.wrote(spec.clone(), pending.started, now);
                    process.written = Some((version, spec));
                    self.pause(index);
                }
                None if process.candidate.holds(now) => self.send(index, Request::Get),
                None => self.pause(index),
            },
        }
    }

    fn handle(&mut self, index: usize, event: Event) {
        let is = |pending: &Option<Pending>, id| pending.as_ref().is_some_and(|p| p.id == id);
        match event {
            Event::Wake => self.attempt(index),
            Event::Arrival(id, request, back, stall) => {
                let answer = self.serve(request);
                if let Some(back) = back {
                    self.after(back, index, Event::Answer(id, answer, stall));
                }
            }
            Event::Answer(id, answer, stall) => {
                if let Some(pending) = &mut self.processes[index].pending
                    && pending.id == id
                {
                    // In time: however late it is looked at, it counts.
                    pending.answered = true;
                    self.after(stall, index, Event::Handled(id, answer));
                }
            }
            Event::Handled(id, answer) => {
                assert!(is(&self.processes[index].pending, id));
                if let Some(pending) = self.processes[index].pending.take() {
                    self.handled(index, pending, answer);
                }
            }
            Event::Timeout(id) => {
                let pending = &mut self.processes[index].pending;
                if is(pending, id) && !pending.as_ref().is_some_and(|p| p.answered) {
                    *pending = None;
                    self.pause(index);
                }
            }
        }
    }

    /// Runs for `length` and returns an error when two hold the Lease at once.
    fn run(&mut self, length: Time) -> Result<(), TestCaseError> {
        while let Some(Reverse((time, key))) = self.queue.pop() {
            if time > length {
                break;
            }
            self.now = time;
            if let Some((index, event)) = self.events.remove(&key) {
                self.handle(index, event);
            }
            let holders: Vec<usize> = (0..self.processes.len())
                .filter(|index| self.processes[*index].candidate.holds(self.local(*index)))
                .collect();
            prop_assert!(holders.len() < 2, "{holders:?} at {time} ms");
            if let [leader] = holders[..]
                && self.leaders.last().is_none_or(|(_, last)| *last != leader)
            {
                self.leaders.push((time, leader));
            }
        }
        Ok(())
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    let travel = || prop_oneof![8 => 1..50_u64, 3 => 50..5_500_u64];
    let whim = prop_oneof![
        40 => Just(Whim::None),
        1 => Just(Whim::Restart),
        1 => Just(Whim::Release),
    ];
    (
        prop_oneof![20 => travel(), 1 => 5_000..40_000_u64],
        prop_oneof![6 => travel().prop_map(Some), 1 => Just(None)],
        prop_oneof![20 => Just(0), 1 => 0..20_000_u64],
        0.0..1.0,
        whim,
    )
        .prop_map(|(there, back, stall, jitter, whim)| Fate {
            there,
            back,
            stall,
            jitter,
            whim,
        })
}

fn outage() -> impl Strategy<Value = Outage> {
    (0..3_usize, 0..300_000_u64, 5_000..40_000_u64, any::<bool>())
        .prop_map(|(candidate, from, length, one_way)| Outage { candidate, from, length, one_way })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    (
        prop::collection::vec(0.9..=1.1_f64, 2..=3),
        prop::collection::vec(fate(), 1..300),
        prop::collection::vec(outage(), 0..12),
    )
        .prop_map(|(rates, fates, outages)| Scenario { rates, fates, outages })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_two_leaders(scenario in scenario()) {
        World::new(scenario).run(400_000)?;
    }
}

#[test]
fn leadership_moves_on_in_a_good_network() {
    let fate = Fate { there: 10, back: Some(10), stall: 0, jitter: 0.5, whim: Whim::None };
    let outage = Outage { candidate: 0, from: 30_000, length: 60_000, one_way: false };
    let mut world = World::new(Scenario {
        rates: vec![1.0, 1.1, 0.9],
        fates: vec![fate],
        outages: vec![outage],
    });
    world.run(600_000).unwrap();
    let [(first, 0), (second, next)] = world.leaders[..] else {
        panic!("{:?}", world.leaders);
    };
    assert!(first < 100, "the first leads at once: {first}");
    assert_ne!(next, 0);
    // 15 s after the last renewal plus one jittered pause.
    assert!((42_000..52_000).contains(&second), "{second}");
}
