//! The arguments that k3s and RKE2 are started with, and hand on to the components that they start.

use std::collections::BTreeMap;

use super::{
    FEATURE_GATES,
    kubelet::{self, FlagValue},
};
use crate::kubernetes::feature_gates::FeatureGates;

/// The options by which k3s and RKE2 take an argument for their kubelet. Go's `flag`, which they read
/// theirs with, takes one dash for two.
const KUBELET: [&str; 2] = ["--kubelet-arg", "-kubelet-arg"];

/// The same for their apiserver.
const APISERVER: [&str; 2] = ["--kube-apiserver-arg", "-kube-apiserver-arg"];

/// What the arguments of k3s or RKE2 say about a boolean flag of the kubelet that they start.
pub fn boolean<'a>(args: impl IntoIterator<Item = &'a str>, flag: &str) -> FlagValue {
    match handed_on(args, KUBELET, flag) {
        Some(all) => kubelet::boolean(all.iter().map(String::as_str), flag),
        None => FlagValue::Unreadable,
    }
}

/// The gates that they give their kubelet; `None` where they name none. A configuration file of the
/// user's own may set more.
pub fn kubelet_gates<'a>(args: impl IntoIterator<Item = &'a str>) -> Option<FeatureGates> {
    let Some(all) = handed_on(args, KUBELET, FEATURE_GATES) else { return Some(unclear()) };
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    kubelet::text(words.iter().copied(), FEATURE_GATES)?;
    let own_file = ["config", "config-dir"]
        .iter()
        .any(|flag| kubelet::text(words.iter().copied(), flag).is_some());
    Some(if own_file { unclear() } else { FeatureGates::from_kubelet_args(&words) })
}

/// The gates that they give their apiserver; `None` where they name none.
pub fn apiserver_gates<'a>(args: impl IntoIterator<Item = &'a str>) -> Option<FeatureGates> {
    let Some(all) = handed_on(args, APISERVER, FEATURE_GATES) else { return Some(unclear()) };
    let gates = FeatureGates::from_args(all.iter().map(String::as_str));
    let names_some = gates.iter().next().is_some() || gates.unreadable().is_some();
    names_some.then_some(gates)
}

fn unclear() -> FeatureGates {
    FeatureGates::hidden("the arguments of k3s or RKE2 do not show every gate")
}

/// The arguments that are handed on by one of these options, as their component gets them; `None` where
/// it is unclear whether the flag is among them.
fn handed_on<'a>(
    args: impl IntoIterator<Item = &'a str>,
    options: [&str; 2],
    flag: &str,
) -> Option<Vec<String>> {
    let mut given = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (option, value) = match arg.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (arg, None),
        };
        if !options.contains(&option) {
            continue;
        }
        let Some(value) = value.or_else(|| args.next()) else { break };
        // The value of some option before, or of this one.
        if options.iter().any(|option| value.starts_with(option)) {
            return None;
        }
        given.push(value);
    }
    // What names the flag in another way than it is given may be understood in another way, too.
    let odd = |arg: &String| {
        let name = arg.split('=').next().unwrap_or_default().replace('_', "-");
        name.contains(flag) && name.strip_prefix("--") != Some(flag)
    };
    let all = in_order(&given);
    (!all.iter().any(odd)).then_some(all)
}

/// The arguments as k3s hands them on (`GetArgs` of its `pkg/daemons/config`): in the order of their
/// names as they are spelled, so `-` before `_`; those of one name in the order in which they were
/// given, but for a name with `-` at its end, which goes to the front, and one with `+`, which does
/// not. No value is true.
fn in_order(given: &[&str]) -> Vec<String> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for arg in given {
        let bare = arg.strip_prefix("--").unwrap_or(arg);
        let (name, value) = bare.split_once('=').unwrap_or((bare, "true"));
        let values = all.entry(name.trim_end_matches(['-', '+'])).or_default();
        let at = if name.ends_with('-') { 0 } else { values.len() };
        values.insert(at, value);
    }
    let each = |(name, values): (&str, Vec<&str>)| {
        values.into_iter().map(|value| format!("--{name}={value}")).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: &str = "redirect-container-streaming";

    #[test]
    fn arguments_for_the_kubelet_of_k3s() {
        for (line, expected) in [
            ("agent", FlagValue::Absent),
            ("agent --kubelet-arg redirect-container-streaming=true", FlagValue::On),
            ("agent --kubelet-arg=redirect-container-streaming=true", FlagValue::On),
            ("agent -kubelet-arg redirect-container-streaming=true", FlagValue::On),
            ("agent -kubelet-arg=redirect-container-streaming=true", FlagValue::On),
            ("agent --kubelet-arg redirect-container-streaming", FlagValue::On),
            ("agent --kubelet-arg --redirect-container-streaming=false", FlagValue::Off),
            ("agent --kubelet-arg redirect_container_streaming=true", FlagValue::On),
            ("server --kubelet-arg redirect_container-streaming", FlagValue::On),
            ("agent --kubelet-arg redirect_container_streaming=false", FlagValue::Off),
            ("agent --kubelet-arg v=2 --kubelet-arg redirect-container-streaming=1", FlagValue::On),
            ("a --node-label redirect_container_streaming=true", FlagValue::Absent),
            ("a --kubelet-arg node-labels=a=redirect-container-streaming", FlagValue::Absent),
            ("a --kubelet-arg redirect-container-streaming=maybe", FlagValue::Unreadable),
            ("a --kubelet-arg", FlagValue::Absent),
            // The last one counts, of the order in which k3s hands them on.
            (
                "a --kubelet-arg redirect-container-streaming=true --kubelet-arg redirect-container-streaming=false",
                FlagValue::Off,
            ),
            (
                "a --kubelet-arg redirect_container_streaming=true --kubelet-arg redirect-container-streaming=false",
                FlagValue::On,
            ),
            (
                "a --kubelet-arg redirect-container-streaming=false --kubelet-arg redirect-container-streaming-=true",
                FlagValue::Off,
            ),
            (
                "a --kubelet-arg redirect-container-streaming-=false --kubelet-arg redirect-container-streaming+=true",
                FlagValue::On,
            ),
            // Nothing that k3s or the kubelet would take.
            ("a --kubelet-arg -redirect-container-streaming=false", FlagValue::Unreadable),
            ("a --kubelet-arg redirect-container-streaming,v=2", FlagValue::Unreadable),
            (
                "a --node-label --kubelet-arg --kubelet-arg redirect-container-streaming",
                FlagValue::Unreadable,
            ),
        ] {
            assert_eq!(boolean(line.split(' '), FLAG), expected, "{line}");
        }
    }

    #[test]
    fn gates_for_the_components_of_k3s() {
        const NONE: Option<(Option<bool>, bool)> = None;
        let says = |gates: Option<FeatureGates>| {
            gates.map(|gates| (gates.get("A"), gates.unreadable().is_none()))
        };
        for (line, of_kubelet, of_apiserver) in [
            ("agent", NONE, NONE),
            ("agent --kubelet-arg v=2", NONE, NONE),
            ("agent --kubelet-arg feature-gates=A=false", Some((Some(false), true)), NONE),
            ("agent --kubelet-arg=--feature_gates=A=false", Some((Some(false), true)), NONE),
            ("agent --kubelet-arg=feature-gates=B=true", Some((None, true)), NONE),
            (
                "a --kubelet-arg feature-gates=A=true,B=true --kubelet-arg feature-gates=A=false",
                Some((Some(false), true)),
                NONE,
            ),
            ("server --kube-apiserver-arg feature-gates=A=true", NONE, Some((Some(true), true))),
            ("server --kube-apiserver-arg=emulated-version=1.35", NONE, Some((None, false))),
            ("a --kubelet-arg feature-gates", Some((None, false)), NONE),
            ("a --kubelet-arg my-feature-gates=A=false", Some((None, false)), NONE),
            // The user's own configuration may set more.
            (
                "a --kubelet-arg config=/a.yaml --kubelet-arg feature-gates=A=false",
                Some((None, false)),
                NONE,
            ),
            ("a --kubelet-arg config=/a.yaml", NONE, NONE),
        ] {
            let args = || line.split(' ');
            let seen = (says(kubelet_gates(args())), says(apiserver_gates(args())));
            assert_eq!(seen, (of_kubelet, of_apiserver), "{line}");
        }
    }
}
