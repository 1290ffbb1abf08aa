use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;
use crate::{
    api::{ApiserverStatus, ApiserversStatus, NodesWish, Permit},
    remediator::test_support::{at, policy},
};

fn change(kind: ChangeKind, gate: Option<GateSetting>) -> Change {
    Change {
        id: "a".to_owned(),
        kind,
        gate,
        policy: "cluster".to_owned(),
        verdict: Permit { resource_version: "70".to_owned(), generation: 3, at: Time(at(0)) },
        deadline_seconds: 180,
        confirmed: false,
    }
}

fn off() -> Change {
    change(ChangeKind::ApiserverGate, Some(GateSetting::Disabled))
}

fn judge(change: &Change, policy: StreamingPolicy, blocking: &[&str]) -> Result<(), Termination> {
    let blocking = blocking.iter().map(|name| (*name).to_owned()).collect();
    let policy = Policy::Is(Box::new(policy));
    check(
        change,
        &PermitInputs { policy, blocking, unjudged: Vec::new(), trust: Trust::Given },
        "cp1",
    )
}

/// The reason; nothing where it is permitted.
fn reason(change: &Change, edit: impl Fn(&mut StreamingPolicy), blocking: &[&str]) -> &'static str {
    let mut policy = policy();
    edit(&mut policy);
    match judge(change, policy, blocking) {
        Ok(()) => "",
        Err(why) => {
            assert_eq!(why.end.phase().as_str(), "Refused");
            assert!(why.message.ends_with('.'), "{}", why.message);
            why.reason
        }
    }
}

fn verdict(policy: &mut StreamingPolicy) -> &mut Condition {
    &mut policy.status.as_mut().unwrap().conditions[0]
}

#[test]
fn the_gate_goes_off_only_as_it_was_judged() {
    type Case = (fn(&mut StreamingPolicy), &'static str);
    let cases: [Case; 17] = [
        (|_| {}, ""),
        (|p| p.metadata.resource_version = Some("71".into()), ""),
        (|p| p.metadata.resource_version = Some("100".into()), ""),
        (|p| p.metadata.resource_version = Some("69".into()), "VerdictChanged"),
        (|p| p.metadata.resource_version = None, "VerdictChanged"),
        (|p| p.metadata.generation = Some(4), "VerdictChanged"),
        (|p| p.metadata.generation = None, "VerdictChanged"),
        (|p| p.spec.paused = true, "PolicyPaused"),
        (|p| p.spec.apply = Apply::Observe, "NotWanted"),
        (|p| p.spec.streaming_proxy_redirects = None, "NotWanted"),
        (|p| p.spec.streaming_proxy_redirects = Some(GateWish::Enabled), "NotWanted"),
        (|p| p.status = None, "VerdictChanged"),
        (|p| p.status.as_mut().unwrap().conditions.clear(), "VerdictChanged"),
        (|p| verdict(p).observed_generation = Some(2), "VerdictChanged"),
        (|p| verdict(p).observed_generation = None, "VerdictChanged"),
        (|p| verdict(p).status = "False".into(), "VerdictChanged"),
        (|p| verdict(p).status = "Unknown".into(), "VerdictChanged"),
    ];
    for (index, (edit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(reason(&off(), edit, &[]), expected, "case {index}");
    }
    let why = judge(&off(), policy(), &["old1", "old2"]).unwrap_err();
    assert_eq!(why.reason, "NodesBlock");
    assert!(why.message.contains("off: old1 and old2."), "{}", why.message);
    let policy = Policy::Is(Box::new(policy()));
    let unjudged = vec!["new1".to_owned()];
    let why = check(
        &off(),
        &PermitInputs { policy, blocking: Vec::new(), unjudged, trust: Trust::Given },
        "cp1",
    )
    .unwrap_err();
    assert_eq!((why.reason, &*why.message), ("VerdictUnseen", "No verdict is stored of new1."));
    let nothing = change(ChangeKind::ApiserverGate, None);
    assert_eq!(reason(&nothing, |_| {}, &[]), "NotWanted");
}

#[test]
fn versions_that_are_no_numbers_have_to_be_the_same() {
    let named = |version: &str| Change {
        verdict: Permit { resource_version: version.to_owned(), ..off().verdict },
        ..off()
    };
    let is_a = |policy: &mut StreamingPolicy| policy.metadata.resource_version = Some("a".into());
    assert_eq!(reason(&named("a"), is_a, &[]), "");
    assert_eq!(reason(&named("b"), is_a, &[]), "VerdictChanged");
    assert_eq!(reason(&named("70"), is_a, &[]), "VerdictChanged");
}

#[test]
fn a_decision_is_of_now() {
    for (second, expected) in [(0, true), (60, true), (61, false), (-60, true), (-61, false)] {
        let judged = fresh(&off(), at(second));
        assert_eq!(judged.is_ok(), expected, "{second}");
        if let Err(why) = judged {
            assert_eq!(why.reason, "VerdictStale");
            assert!(why.message.contains("61 s"), "{}", why.message);
        }
    }
}

#[test]
fn what_the_default_comes_to_depends_on_the_version() {
    let default = change(ChangeKind::ApiserverGate, Some(GateSetting::Default));
    let on = change(ChangeKind::ApiserverGate, Some(GateSetting::Enabled));
    let plane = |oldest: Option<&str>, newest: Option<&str>, own: Option<&str>| {
        let (oldest, newest) = (oldest.map(str::to_owned), newest.map(str::to_owned));
        let instance = |name: &str, version: &str| ApiserverStatus {
            name: name.to_owned(),
            version: Some(version.to_owned()),
            ..ApiserverStatus::default()
        };
        let instances =
            own.map(|own| vec![instance("cp0", "1.18"), instance("cp1", own)]).unwrap_or_default();
        ApiserversStatus { oldest, newest, count: 2, instances }
    };
    for (plane, when_disabled, when_enabled) in [
        (plane(Some("1.20"), Some("1.20"), None), "NotWanted", ""),
        (plane(Some("1.22"), Some("1.23"), None), "", "NotWanted"),
        (plane(Some("1.24"), Some("1.24"), None), "", "NotWanted"),
        // Some on, some off: only the node's own version tells.
        (plane(Some("1.21"), Some("1.22"), None), "NotWanted", "NotWanted"),
        (plane(Some("1.21"), Some("1.22"), Some("1.21")), "NotWanted", ""),
        (plane(Some("1.21"), Some("1.22"), Some("1.22")), "", "NotWanted"),
        (plane(None, None, None), "NotWanted", "NotWanted"),
        (plane(Some("new"), Some("new"), None), "NotWanted", "NotWanted"),
    ] {
        let wish = |wish| {
            let plane = plane.clone();
            move |policy: &mut StreamingPolicy| {
                policy.spec.streaming_proxy_redirects = Some(wish);
                policy.status.as_mut().unwrap().apiservers = plane.clone();
            }
        };
        let (disabled, enabled) = (wish(GateWish::Disabled), wish(GateWish::Enabled));
        assert_eq!(reason(&default, disabled, &[]), when_disabled, "{plane:?}");
        assert_eq!(reason(&default, &enabled, &[]), when_enabled, "{plane:?}");
        // To turn it on breaks nobody's exec.
        let unsafe_ = |policy: &mut StreamingPolicy| {
            enabled(policy);
            verdict(policy).status = "False".into();
        };
        assert_eq!(reason(&on, unsafe_, &[]), "", "{plane:?}");
        let mut policy = policy();
        enabled(&mut policy);
        let policy = Policy::Is(Box::new(policy));
        assert!(!turns_off(&on, &policy, "cp1"));
        assert!(turns_off(&off(), &policy, "cp1"));
        assert_eq!(turns_off(&default, &policy, "cp1"), !when_enabled.is_empty());
    }
    assert!(turns_off(&on, &Policy::Missing, "cp1"));
    assert!(!turns_off(&change(ChangeKind::KubeletFlag, None), &Policy::Missing, "cp1"));
}

#[test]
fn the_flag_goes_where_the_policy_says_so() {
    let flag = change(ChangeKind::KubeletFlag, None);
    type Case = (fn(&mut StreamingPolicy), &'static str);
    let cases: [Case; 6] = [
        (|_| {}, ""),
        // That is what it is for.
        (|p| verdict(p).status = "False".into(), ""),
        (|p| p.spec.paused = true, "PolicyPaused"),
        (|p| p.spec.nodes = None, "NotWanted"),
        (|p| p.spec.nodes = Some(NodesWish::default()), "NotWanted"),
        (|p| p.metadata.generation = Some(4), "VerdictChanged"),
    ];
    for (index, (edit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(reason(&flag, edit, &["old1"]), expected, "case {index}");
    }
}

#[test]
fn the_flag_stays_where_a_kubelet_that_proxies_may_not_trust_the_runtime() {
    let flag = change(ChangeKind::KubeletFlag, None);
    for (trust, expected) in [
        (Trust::Given, ""),
        (Trust::Missing, "RuntimeNotTrusted"),
        (Trust::Untold, "RuntimeUntold"),
    ] {
        let mut wanted = policy();
        let remediation = Remediation::KubeletFlag;
        wanted.spec.nodes = Some(NodesWish { remediation, ..NodesWish::default() });
        let policy = Policy::Is(Box::new(wanted));
        let scene = PermitInputs { policy, blocking: Vec::new(), unjudged: Vec::new(), trust };
        let refused = check(&flag, &scene, "old1").err();
        assert_eq!(refused.map_or("", |why| why.reason), expected, "{trust:?}");
    }
}

#[test]
fn a_policy_that_is_not_there_permits_nothing() {
    for (policy, expected) in [
        (Policy::Missing, "NotWanted"),
        (Policy::Unreadable("apply: no such thing".to_owned()), "PolicyUnreadable"),
    ] {
        let scene = PermitInputs {
            policy,
            blocking: Vec::new(),
            unjudged: Vec::new(),
            trust: Trust::Given,
        };
        assert_eq!(check(&off(), &scene, "cp1").unwrap_err().reason, expected);
    }
}
