//! What kubelets do about the redirect flag.

use std::collections::BTreeSet;

use sluice::decision::migration::{FlagBehaviour, STREAMING_REDIRECTS};

use crate::binaries::{self, Binary};

/// What a kubelet says of the flag. Whether it obeys shows in the line with which it deprecates the
/// flag; that it really redirects, or does not, is seen on the test cluster (`tests/e2e/cells.rs`).
fn asked(kubelet: &Binary, argument: &str) -> FlagBehaviour {
    let (started, said) = kubelet.says(&[argument, "--version"]);
    let version = format!("Kubernetes v{}", kubelet.version);
    if !started {
        // As a person reads it, whichever spelling was given.
        let refusal = format!("unknown flag: {}", argument.split('=').next().unwrap());
        assert!(said.replace('_', "-").contains(&refusal.replace('_', "-")), "{said}");
        return FlagBehaviour::Removed;
    }
    assert!(said.contains(&version), "{} says: {said}", kubelet.path.display());
    let obeyed = "Container streaming redirection will be removed from the kubelet in v1.20";
    let ignored = "Container streaming redirection has been removed from the kubelet as of v1.20";
    match (said.contains(obeyed), said.contains(ignored)) {
        (true, false) => FlagBehaviour::Obeyed,
        (false, true) => FlagBehaviour::Ignored,
        _ => panic!("neither obeyed nor ignored: {said}"),
    }
}

#[test]
#[ignore = "asks the binaries that tests/cluster builds"]
fn kubelets_take_the_flag_as_the_table_says() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for kubelet in binaries::of("kubelet") {
        let expected = STREAMING_REDIRECTS.kubelet_at(kubelet.minor());
        for argument in [
            "--redirect-container-streaming",
            "--redirect-container-streaming=true",
            "--redirect-container-streaming=false",
            "--redirect_container_streaming=true",
        ] {
            let answer = asked(&kubelet, argument);
            println!("kubelet {} {argument}: {answer:?}", kubelet.version);
            seen.insert(format!("{answer:?}"));
            if expected != Some(answer) {
                let version = &kubelet.version;
                wrong.push(format!(
                    "kubelet {version} {argument}: {answer:?}, the table says {expected:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = ["Obeyed", "Ignored", "Removed"].map(str::to_owned).into();
    assert_eq!(seen, all, "a kubelet of each kind has to be there");
}
