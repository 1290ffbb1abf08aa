//! Whether the kubelet keeps exiting right after it starts. Pure.

use std::time::Duration;

use crate::node::systemd::Starts;

/// A kubelet that has been running for so long has come up.
const UP: Duration = Duration::from_secs(20);

/// So many kubelets in a row have to exit before they are up. One that exits may have been killed.
const IN_A_ROW: u32 = 3;

/// A process and when it was started.
type Process = (u32, u64);

/// The kubelet that runs, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which process it is.
    pub process: Process,
    /// How long it has been running.
    pub age: Duration,
}

impl Running {
    fn is_up(self) -> bool {
        self.age >= UP
    }
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Crashes {
    /// What systemd had counted when the kubelet was last up, or was first asked about.
    before: Option<u32>,
    /// The kubelet that is up, once systemd was asked about it.
    settled: Option<Process>,
    /// The last one that was seen and is not up.
    young: Option<Process>,
    /// How many of those have been seen to go, since one was up.
    gone: u32,
    /// How the last one exited.
    exited: Option<String>,
    looping: bool,
}

impl Crashes {
    /// Whether systemd has to be asked: once of each kubelet that is up, and as long as none is.
    pub fn has_to_ask(&self, running: Option<Running>) -> bool {
        running.is_none_or(|now| !now.is_up() || self.settled != Some(now.process))
    }

    /// Takes what systemd says. Where it says nothing, as on a node without it, what was seen of the
    /// processes counts.
    pub fn see(&mut self, running: Option<Running>, starts: Option<&Starts>) {
        if let Some(now) = running.filter(|now| now.is_up()) {
            let before = starts.map(|starts| starts.again).or(self.before);
            *self = Self { before, settled: Some(now.process), ..Self::default() };
            return;
        }
        let process = running.map(|now| now.process);
        if self.young.is_some() && process != self.young {
            self.gone += 1;
        }
        self.young = process;
        let in_a_row = match starts {
            None => self.gone,
            Some(Starts { again, exited }) => {
                // Somebody who starts the kubelet by hand sets the count back to 0.
                let before = self.before.filter(|before| before <= again);
                let before = *self.before.insert(before.unwrap_or(match self.before {
                    Some(_) => 0,
                    None => *again,
                }));
                self.exited = exited.clone().or(self.exited.take());
                again - before
            }
        };
        // Until one is up: who starts it once more has not mended it yet.
        self.looping |= in_a_row >= IN_A_ROW;
    }

    /// What there is to say, where it keeps exiting.
    pub fn message(&self) -> Option<String> {
        self.looping.then(|| match &self.exited {
            Some(exited) => format!("The kubelet keeps exiting; it exited last {exited}."),
            None => "The kubelet keeps exiting.".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(again: u32) -> Option<Starts> {
        Some(Starts { again, exited: Some("with status 1".to_owned()) })
    }

    /// A kubelet that has just been started.
    fn young(pid: u32) -> Option<Running> {
        Some(Running { process: (pid, 1), age: Duration::from_secs(1) })
    }

    /// One that is up.
    fn old(pid: u32) -> Option<Running> {
        Some(Running { process: (pid, 1), age: UP })
    }

    fn looping(seen: &[(Option<Running>, Option<Starts>)]) -> bool {
        let mut crashes = Crashes::default();
        for (running, starts) in seen {
            crashes.see(*running, starts.as_ref());
        }
        crashes.message().is_some()
    }

    #[test]
    fn one_that_does_not_come_up_three_times_in_a_row() {
        for (seen, expected) in [
            (&[][..], false),
            (&[(None, None)], false),
            // What was counted before the agent was there says nothing.
            (&[(None, starts(9))], false),
            (&[(None, starts(9)), (young(2), starts(11))], false),
            (&[(None, starts(9)), (young(2), starts(12))], true),
            (&[(old(1), starts(7)), (None, starts(7)), (young(2), starts(8))], false),
            (&[(old(1), starts(7)), (None, starts(7)), (young(2), starts(10))], true),
            // systemd has given up, or does not tell at the moment.
            (&[(old(1), starts(0)), (None, starts(3)), (None, starts(3))], true),
            (&[(old(1), starts(0)), (None, starts(3)), (None, None)], true),
            // Killed now and then, and up in between.
            (
                &[(old(1), starts(0)), (None, starts(2)), (old(2), starts(2)), (None, starts(4))],
                false,
            ),
            (&[(old(1), starts(0)), (None, starts(3)), (old(2), None)], false),
            // Somebody starts it again, which has yet to mend it.
            (&[(old(1), starts(0)), (None, starts(3)), (young(2), starts(0))], true),
            (&[(old(1), starts(9)), (young(2), starts(0)), (None, starts(2))], false),
            (&[(old(1), starts(9)), (young(2), starts(0)), (None, starts(3))], true),
        ] {
            assert_eq!(looping(seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn without_systemd_the_processes_are_counted() {
        let none = |running: &[Option<Running>]| {
            looping(&running.iter().map(|running| (*running, None)).collect::<Vec<_>>())
        };
        assert!(!none(&[old(1), None, young(2), None, young(3), None]), "two have gone");
        assert!(none(&[old(1), None, young(2), None, young(3), young(4), None]));
        assert!(none(&[young(2), young(2), young(3), young(4), young(5)]));
        assert!(!none(&[young(2), young(3), old(3), young(4), young(5), young(6)]));
    }

    #[test]
    fn systemd_is_asked_once_of_a_kubelet_that_is_up() {
        let mut crashes = Crashes::default();
        assert!(crashes.has_to_ask(old(1)) && crashes.has_to_ask(None));
        crashes.see(old(1), None);
        assert!(!crashes.has_to_ask(old(1)), "it does not tell");
        assert!(crashes.has_to_ask(None) && crashes.has_to_ask(young(2)));
        crashes.see(young(2), starts(1).as_ref());
        assert!(crashes.has_to_ask(old(2)));
        crashes.see(old(2), starts(1).as_ref());
        assert!(!crashes.has_to_ask(old(2)));
    }

    #[test]
    fn how_it_exited_is_said_while_it_runs_again_for_a_moment() {
        let mut crashes = Crashes::default();
        crashes.see(None, starts(0).as_ref());
        crashes.see(None, starts(3).as_ref());
        let said = crashes.message().unwrap();
        assert!(said.ends_with("it exited last with status 1."), "{said}");
        crashes.see(young(4), Some(&Starts { again: 4, exited: None }));
        assert_eq!(crashes.message(), Some(said));
    }
}
