//! What apiservers do about the gates, and about a redirect.

use std::collections::BTreeSet;

use sluice::{
    canary,
    decision::{
        canary::Answer,
        gate::{self, Gate},
        migration::{GateBehaviour, STREAMING_REDIRECTS, Track},
    },
    kubernetes::{feature_gates::FeatureGates, version::Minor},
};

use crate::{
    apiserver::Apiserver,
    binaries,
    gates::{self, Taken},
    redirecting::{Kubelet, Leads},
};

/// What upstream released.
const TRACK: Track = Track::ExtraSafe;

#[test]
#[ignore = "asks the binaries that tests/cluster builds"]
fn apiservers_take_the_gates_as_the_tables_say() {
    let mut wrong = Vec::new();
    for apiserver in binaries::of("kube-apiserver") {
        let minor = apiserver.minor();
        let migration = &STREAMING_REDIRECTS;
        for (gate, table) in [
            (migration.gate, migration.apiserver_at(minor, TRACK)),
            (migration.validation_gate, migration.validation_at(minor, TRACK)),
        ] {
            let taken = gates::asked(&apiserver, gate);
            println!("kube-apiserver {} {gate}: {taken:?}", apiserver.version);
            let fits = match (taken, table) {
                (Taken::Never, Some(GateBehaviour::Removed)) => true,
                (
                    Taken::Either { stage: seen, default },
                    Some(GateBehaviour::Settable { default: expected, stage }),
                ) => seen == stage && default.is_none_or(|default| default == expected),
                _ => false,
            };
            if !fits {
                let version = &apiserver.version;
                wrong.push(format!(
                    "kube-apiserver {version} {gate}: {taken:?}; the table says {table:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an apiserver does with a redirect to the kubelet's own host, and to another name of it.
#[derive(Debug, PartialEq, Eq)]
struct Followed {
    same_host: bool,
    other_host: bool,
}

/// What Sluice believes of an apiserver that is started like this.
fn believed(minor: Minor, gates: &FeatureGates) -> Followed {
    let gate = gate::effective(&STREAMING_REDIRECTS, TRACK, Some(minor), Some(gates));
    let validates =
        gate::validates_redirects(&STREAMING_REDIRECTS, TRACK, Some(minor), Some(gates));
    let same_host = gate == Gate::Enabled;
    Followed { same_host, other_host: same_host && validates == Some(false) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs the binaries that tests/cluster builds"]
async fn apiservers_follow_redirects_as_the_tables_say() {
    let mut wrong = Vec::new();
    let mut kinds = BTreeSet::new();
    for binary in binaries::of("kube-apiserver") {
        let settings: &[&str] = match STREAMING_REDIRECTS.apiserver_at(binary.minor(), TRACK) {
            Some(GateBehaviour::Removed) => &[""],
            _ => &[
                "",
                "StreamingProxyRedirects=true",
                "StreamingProxyRedirects=false",
                "StreamingProxyRedirects=true,ValidateProxyRedirects=false",
                // Up to 1.19 what the others of its flags need is beta, too.
                match binary.minor() {
                    Minor(..20) => "StreamingProxyRedirects=true,AllBeta=false,TokenRequest=true",
                    _ => "StreamingProxyRedirects=true,AllBeta=false",
                },
                "AllAlpha=false",
            ],
        };
        for setting in settings {
            let flag = format!("--feature-gates={setting}");
            let flags: &[&str] = if setting.is_empty() { &[] } else { &[&flag] };
            let seen = see(&binary.version.to_string(), flags, &mut wrong).await;
            let believed =
                believed(binary.minor(), &FeatureGates::from_args(flags.iter().copied()));
            println!("kube-apiserver {} {setting:?}: {seen:?}", binary.version);
            if setting.is_empty() {
                kinds.insert((binary.minor() >= Minor(24), seen.same_host));
            }
            if seen != believed {
                let version = &binary.version;
                wrong.push(format!(
                    "kube-apiserver {version} {setting:?}: {seen:?}, believed {believed:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = [(false, true), (false, false), (true, false)].into();
    assert_eq!(kinds, all, "an apiserver on by default, one off and one without the gate");
}

/// Makes each kind of stream to kubelets that redirect. The runtime knows who came; what the
/// canary makes of a redirect that was not followed has to fit that.
async fn see(version: &str, flags: &[&str], wrong: &mut Vec<String>) -> Followed {
    let server = Apiserver::start_of(version, flags).await;
    let client = server.client().await;
    let instance =
        canary::Instance { name: "cp".into(), url: String::new(), client: client.clone() };
    let [mut same_host, mut other_host] = [false; 2];
    for leads in [Leads::Here, Leads::Elsewhere] {
        let kubelet = Kubelet::start(&client, leads).await;
        let probes =
            canary::run(std::slice::from_ref(&instance), &[kubelet.pod()], |_, _| {}).await;
        let came = kubelet.runtime_was_reached();
        // All streams or none.
        let all = canary::STREAMS;
        assert!(
            came == 0 || came == all,
            "{version} {flags:?} {leads:?}: {came} of {all} streams came"
        );
        let reached = came > 0;
        let refusal = match leads {
            Leads::Elsewhere if same_host => Answer::HostnameMismatch,
            _ => Answer::RedirectRefused,
        };
        match leads {
            Leads::Here => same_host = reached,
            Leads::Elsewhere => other_host = reached,
        }
        // The played runtime has no stream to give: then the canary says something else.
        let fits = |answer| (answer == refusal) != reached;
        if !probes.iter().all(|probe| probe.answers().into_iter().all(fits)) {
            wrong.push(format!("{version} {flags:?} {leads:?}: {refusal:?}? {probes:?}"));
        }
    }
    Followed { same_host, other_host }
}
