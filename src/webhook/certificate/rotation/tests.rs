//! The steps one by one, and what holds through all of them.

use proptest::prelude::*;

use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn at(days: i32) -> Timestamp {
    start() + DAY * days
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|&name| name.to_owned()).collect()
}

/// An authority made on that day.
fn authority(day: i32) -> Validity {
    Validity::starting(at(day), AUTHORITY_LIFETIME)
}

fn serving(day: i32, issuer: Option<usize>) -> Option<Serving> {
    let validity = Validity::starting(at(day), SERVING_LIFETIME);
    Some(Serving { validity, names: names(&["svc", "svc.ns"]), issuer })
}

fn held(authorities: &[i32], serving: Option<Serving>) -> Held {
    let authorities = authorities.iter().map(|&day| authority(day)).collect();
    Held { authorities, signs: true, serving }
}

fn check(held: &Held, trusted: bool, now: Timestamp, expected: Step) {
    assert_eq!(next(held, &names(&["svc"]), trusted, now), expected, "{held:?} at {now}");
}

#[test]
fn nothing_usable_begins_anew() {
    check(&Held::default(), true, at(0), Step::Begin);
    check(&held(&[], serving(0, None)), true, at(1), Step::Begin);
    // Without the key the authority cannot sign another.
    let keyless = |serving| Held { signs: false, ..held(&[0], serving) };
    check(&keyless(None), true, at(1), Step::Begin);
    check(&keyless(serving(0, Some(0))), true, at(90), Step::Begin);
    check(&held(&[0], serving(300, Some(0))), true, at(365), Step::Begin);
    // A clock that was far ahead has made them.
    check(&held(&[100], serving(100, Some(0))), true, at(1), Step::Begin);
}

#[test]
fn an_authority_that_can_sign_does() {
    for of in [
        held(&[0], None),
        held(&[0], serving(0, None)),
        held(&[0], serving(0, Some(1))),
        held(&[0], serving(-90, Some(0))),
    ] {
        check(&of, false, at(1), Step::Issue);
    }
    let of = held(&[0], serving(0, Some(0)));
    assert_eq!(next(&of, &names(&["svc", "new"]), false, at(1)), Step::Issue);
    assert_eq!(next(&of, &names(&[]), true, at(1)), Step::Keep(at(60) - HOUR / 3));
}

#[test]
fn a_certificate_is_renewed_after_two_thirds() {
    let of = held(&[0], serving(0, Some(0)));
    let due = at(60) - HOUR / 3;
    check(&of, true, at(0), Step::Keep(due));
    check(&of, true, at(59), Step::Keep(due));
    check(&of, true, due, Step::Issue);
    check(&of, true, at(89), Step::Issue);
    // If the apiserver does not trust the authority, a new certificate is no better.
    check(&of, false, at(61), Step::Keep(at(90)));
    check(&of, false, at(90), Step::Issue);
}

#[test]
fn an_authority_joins_settles_and_then_signs() {
    let due = authority(0).due();
    let old = held(&[0], serving(200, Some(0)));
    check(&old, true, due - HOUR, Step::Keep(due));
    check(&old, true, due, Step::Join);
    check(&old, false, due, Step::Join);
    check(&Held { signs: false, ..old }, true, at(210), Step::Join);

    let both = held(&[243, 0], serving(200, Some(1)));
    let settled = at(243) + SETTLES;
    check(&both, true, at(243), Step::Keep(settled));
    check(&both, true, settled, Step::Issue);
    check(&both, false, settled, Step::Keep(at(290)));
    check(&both, false, at(290), Step::Issue);

    let switched = held(&[243, 0], serving(244, Some(0)));
    check(&switched, true, at(245), Step::Keep(at(304) - HOUR / 3));
    check(&held(&[243, 0], serving(300, Some(0))), true, at(310), Step::Keep(at(360) - HOUR / 3));
    check(&held(&[243, 0], serving(320, Some(0))), true, at(330), Step::Keep(at(365)));
    check(&held(&[243, 0], serving(320, Some(0))), true, at(365), Step::Forget);
    check(&held(&[243], serving(320, Some(0))), true, at(366), Step::Keep(at(380) - HOUR / 3));
}

/// What carrying out a step makes of the Secret.
fn perform(held: &Held, step: Step, now: Timestamp) -> Held {
    let mut next = held.clone();
    if matches!(step, Step::Begin | Step::Forget) {
        // The issuer of what is served is valid, so its place is found again.
        let issuer = next.serving.as_ref().and_then(|serving| serving.issuer);
        let issuer = issuer.map(|index| next.authorities[index]);
        next.authorities.retain(|authority| now < authority.until);
        if let Some(serving) = &mut next.serving {
            serving.issuer = next.authorities.iter().position(|other| Some(*other) == issuer);
        }
    }
    if matches!(step, Step::Begin | Step::Join) {
        next.authorities.insert(0, Validity::starting(now, AUTHORITY_LIFETIME));
        next.signs = true;
        if let Some(Serving { issuer: Some(index), .. }) = &mut next.serving {
            *index += 1;
        }
    }
    if matches!(step, Step::Begin | Step::Issue) {
        let validity = Validity::starting(now, SERVING_LIFETIME);
        next.serving = Some(Serving { validity, names: names(&["svc"]), issuer: Some(0) });
    }
    next
}

#[derive(Clone, Debug)]
enum Happens {
    /// Time passes: as much, or until there is something to do.
    Hours(u16),
    /// The replicas were asleep when something was due.
    Years(u8),
    /// The bundle reaches the configuration.
    Published,
    /// Somebody takes the authority's key away.
    KeyLost,
    /// Somebody deletes the Secret.
    Deleted,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        20 => (1..3000_u16).prop_map(Happens::Hours),
        1 => (1..3_u8).prop_map(Happens::Years),
        20 => Just(Happens::Published),
        1 => Just(Happens::KeyLost),
        1 => Just(Happens::Deleted),
    ]
}

proptest! {
    #[test]
    fn what_is_served_is_signed_by_an_authority_of_the_bundle(
        story in prop::collection::vec(happens(), 1..120),
    ) {
        let wanted = names(&["svc"]);
        let (mut held, mut now) = (Held::default(), start());
        // The authorities that the apiserver trusts.
        let mut bundle: Vec<Validity> = Vec::new();
        for event in story {
            match event {
                Happens::Hours(hours) => {
                    let mut rest = SignedDuration::from_hours(i64::from(hours));
                    if let Step::Keep(until) = next(&held, &wanted, true, now) {
                        rest = rest.min(until.duration_since(now));
                    }
                    now += rest;
                }
                Happens::Years(years) => now += DAY * 365 * i32::from(years),
                Happens::Published => bundle.clone_from(&held.authorities),
                Happens::KeyLost => held.signs = false,
                Happens::Deleted => held = Held::default(),
            }
            let accepted = |held: &Held| {
                let issuer = held.serving.as_ref().and_then(|serving| {
                    serving.validity.holds(now).then_some(())?;
                    held.authorities.get(serving.issuer?)
                });
                issuer.is_some_and(|issuer| issuer.holds(now) && bundle.contains(issuer))
            };
            for steps in 0.. {
                prop_assert!(steps < 5, "{:?} has no end", held);
                let trusted = held.authorities.first().is_some_and(|first| bundle.contains(first));
                let step = next(&held, &wanted, trusted, now);
                if let Step::Keep(until) = step {
                    prop_assert!(until > now, "nothing would wait for {until}");
                    break;
                }
                let was_accepted = accepted(&held);
                held = perform(&held, step, now);
                prop_assert!(!was_accepted || accepted(&held), "{step:?} cuts off what works");
            }
            let serving = held.serving.as_ref().unwrap();
            let issuer = held.authorities[serving.issuer.unwrap()];
            prop_assert!(issuer.holds(now) && serving.validity.holds(now));
        }
    }
}
