//! Whether the kubelet ends again and again right after its start. Pure.

use std::time::Duration;

use crate::node::systemd::Starts;

/// A kubelet that has been running for so long has come up.
const UP: Duration = Duration::from_secs(20);

/// So many times in a row systemd has to start a kubelet that does not come up. One that ends once may
/// have been killed.
const IN_A_ROW: u32 = 3;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Crashes {
    /// What systemd had counted when the kubelet was last up.
    before: u32,
    /// Whether that is known of the kubelet that runs.
    counted: bool,
    /// How it ended last, since then.
    ended: Option<String>,
    looping: bool,
}

impl Crashes {
    /// Whether systemd has to be asked; `age` is how long the kubelet has been running, if it runs.
    pub fn has_to_ask(&self, age: Option<Duration>) -> bool {
        !(self.counted && is_up(age))
    }

    /// Takes what systemd says, if it says anything.
    pub fn see(&mut self, age: Option<Duration>, starts: Option<&Starts>) {
        if is_up(age) {
            if let Some(starts) = starts {
                (self.before, self.counted) = (starts.again, true);
            }
            (self.ended, self.looping) = (None, false);
            return;
        }
        self.counted = false;
        // Where systemd does not tell at the moment, what it has told still stands.
        let Some(Starts { again, ended }) = starts else { return };
        if *again < self.before {
            // Somebody has started it, which starts the count anew.
            self.before = 0;
        }
        self.looping = again - self.before >= IN_A_ROW;
        if ended.is_some() {
            self.ended.clone_from(ended);
        }
    }

    /// What there is to say, where it ends again and again.
    pub fn message(&self) -> Option<String> {
        self.looping.then(|| match &self.ended {
            Some(ended) => format!("systemd starts the kubelet again and again. It ends {ended}."),
            None => "systemd starts the kubelet again and again.".to_owned(),
        })
    }
}

fn is_up(age: Option<Duration>) -> bool {
    age.is_some_and(|age| age >= UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(again: u32) -> Option<Starts> {
        Some(Starts { again, ended: Some("with exit status 1".to_owned()) })
    }

    const YOUNG: Option<Duration> = Some(Duration::from_secs(1));
    const OLD: Option<Duration> = Some(Duration::from_secs(25));

    fn looping(seen: &[(Option<Duration>, Option<Starts>)]) -> bool {
        let mut crashes = Crashes::default();
        for (age, starts) in seen {
            crashes.see(*age, starts.as_ref());
        }
        crashes.message().is_some()
    }

    #[test]
    fn one_that_does_not_come_up_three_times_in_a_row() {
        for (seen, expected) in [
            (&[][..], false),
            (&[(None, None)], false),
            (&[(None, starts(2))], false),
            (&[(None, starts(3))], true),
            (&[(YOUNG, starts(3))], true),
            // systemd has given up.
            (&[(None, starts(5)), (None, starts(5))], true),
            (&[(None, starts(3)), (None, None)], true),
            (&[(None, starts(3)), (OLD, None)], false),
            (&[(None, starts(3)), (OLD, starts(3)), (None, starts(4))], false),
            // Killed now and then, and up in between.
            (&[(OLD, starts(7)), (None, starts(7)), (YOUNG, starts(8))], false),
            (&[(OLD, starts(7)), (None, starts(7)), (YOUNG, starts(10))], true),
            // Somebody starts it again, which mends it, or not.
            (&[(None, starts(9)), (YOUNG, starts(0))], false),
            (&[(OLD, starts(9)), (YOUNG, starts(0)), (None, starts(3))], true),
        ] {
            assert_eq!(looping(seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn systemd_is_asked_until_the_kubelet_is_up() {
        let mut crashes = Crashes::default();
        assert!(crashes.has_to_ask(OLD), "what it has counted is not known yet");
        crashes.see(OLD, None);
        assert!(crashes.has_to_ask(OLD));
        crashes.see(OLD, starts(2).as_ref());
        assert!(!crashes.has_to_ask(OLD));
        assert!(crashes.has_to_ask(None) && crashes.has_to_ask(YOUNG));
        crashes.see(YOUNG, starts(3).as_ref());
        assert!(crashes.has_to_ask(OLD));
    }

    #[test]
    fn how_it_ended_is_said_while_it_runs_again_for_a_moment() {
        let mut crashes = Crashes::default();
        crashes.see(None, starts(3).as_ref());
        let said = crashes.message().unwrap();
        assert!(said.ends_with("It ends with exit status 1."), "{said}");
        crashes.see(YOUNG, Some(&Starts { again: 4, ended: None }));
        assert_eq!(crashes.message(), Some(said));
    }
}
