//! What apiservers and kubelets make of a feature gate, and the table of those of WebSockets.

use std::collections::BTreeSet;

use sluice::decision::{
    migration::Stage,
    websockets::gates::{Behaviour, PLANNED, StreamGate},
};

use crate::binaries::{self, Binary};

/// What the command line of a component makes of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It does not start with the gate.
    Never,
    /// Either value. The default is absent where it cannot be asked like this: `--help` leaves deprecated gates out.
    Either { stage: Stage, default: Option<bool> },
    /// It does not start with the other value.
    Locked { to: bool },
    /// It does not start without it while others are on, as they are by default, that depend on it.
    Needed,
}

/// Whether a component takes a gate with this value, and what it says. An apiserver looks at its gates before it
/// prints its version; a kubelet after that, but before it looks for its configuration.
fn takes(component: &Binary, gate: &str, value: bool) -> (bool, String) {
    const NOWHERE: &str = "/nonexistent/kubelet.yaml";
    let gates = format!("--feature-gates={gate}={value}");
    if component.is_kubelet() {
        let config = format!("--config={NOWHERE}");
        let (started, said) = component.says(&[&gates, &config]);
        assert!(!started, "{said}");
        let taken = said.contains(NOWHERE);
        assert!(taken || said.contains("feature gate"), "{said}");
        return (taken, said);
    }
    component.says(&[&gates, "--version"])
}

pub fn asked(component: &Binary, gate: &str) -> Taken {
    let [(on, said_on), (off, said_off)] = [true, false].map(|value| takes(component, gate, value));
    match (on, off) {
        (true, true) => {}
        (false, false) => {
            for said in [said_on, said_off] {
                assert!(said.contains(&format!("unrecognized feature gate: {gate}")), "{said}");
            }
            return Taken::Never;
        }
        (to, _) => {
            let said = if to { said_off } else { said_on };
            if said.contains(&format!("depends on features that are disabled: [{gate}]")) {
                return Taken::Needed;
            }
            let refusal =
                format!("cannot set feature gate {gate} to {}, feature is locked to {to}", !to);
            assert!(said.contains(&refusal), "{said}");
            return Taken::Locked { to };
        }
    }
    let (_, help) = component.says(&["--help"]);
    let line = help.lines().find(|line| line.contains(&format!("{gate}=true|false (")));
    if line.is_none() && said_on.contains(&format!("Setting deprecated feature gate {gate}=true")) {
        return Taken::Either { stage: Stage::Deprecated, default: None };
    }
    let line = line.unwrap_or_else(|| panic!("{gate} is taken, and neither deprecated nor listed"));
    let stage = match line {
        line if line.contains("(ALPHA") => Stage::Alpha,
        line if line.contains("(BETA") => Stage::Beta,
        _ => panic!("{line}"),
    };
    Taken::Either { stage, default: Some(line.contains("default=true")) }
}

#[test]
#[ignore = "asks the binaries that tests/cluster builds"]
fn components_take_the_gates_of_websockets_as_the_table_says() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for name in ["kube-apiserver", "kubelet"] {
        for component in binaries::of(name) {
            let minor = component.minor();
            for gate in StreamGate::ALL {
                let taken = asked(&component, gate.as_str());
                println!("{name} {} {}: {taken:?}", component.version, gate.as_str());
                seen.insert(format!("{name} {taken:?}"));
                let expected = match gate.at(minor) {
                    Behaviour::NotThereYet => Taken::Never,
                    Behaviour::Settable { default, stage } => {
                        Taken::Either { stage, default: Some(default) }
                    }
                    Behaviour::Needed => Taken::Needed,
                    Behaviour::Locked { to } => Taken::Locked { to },
                };
                if taken != expected {
                    let plan = if minor >= PLANNED { " (which is the plan)" } else { "" };
                    wrong.push(format!(
                        "{name} {} {}: {taken:?}; the table says {expected:?}{plan}",
                        component.version,
                        gate.as_str()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 2, "a component that knows a gate, and one that does not: {seen:?}");
}
