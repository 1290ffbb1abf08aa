//! The apiservers that are judged: those that are seen, and what the user says of the others.

use super::{
    judge::{Error, Options},
    objects::Objects,
};
use crate::{
    cluster::{ApiserverPod, judged_gates},
    decision::{
        apiserver::{Apiserver, Unseen},
        websockets::gates::StreamGate,
    },
    kubernetes::{arguments::FEATURE_GATES, feature_gates::FeatureGates},
};

/// The name of an apiserver that only the command line speaks of.
const APISERVER: &str = "apiserver";

/// The name of the apiservers that may be there beside those that are seen.
const OTHERS: &str = "others";

/// The gates that k3s and RKE2 give the apiservers that they run themselves, by node.
pub(super) fn of_nodes(objects: &Objects) -> Vec<(String, FeatureGates)> {
    let nodes = objects.nodes.iter();
    nodes.filter_map(|(name, node)| Some((name.clone(), node.apiserver_gates()?))).collect()
}

/// The apiservers with what the user says of those that are not seen. What is seen wins, and a
/// user who says otherwise is mistaken about the cluster or about the files.
pub(super) fn instances(
    seen: &[Apiserver],
    started: &[(String, FeatureGates)],
    objects: &Objects,
    options: &Options,
) -> Result<Vec<Apiserver>, Error> {
    let said = said(options)?;
    if let Some(said) = &said {
        for (node, gates) in started {
            agree(node, gates, said)?;
        }
    }
    let mut all = seen.to_vec();
    let unseen = |name: &str| {
        let unseen = Some(Unseen::NoMirrorPod);
        Apiserver { name: name.to_owned(), minor: None, gates: None, unseen }
    };
    if objects.endpoints_hidden {
        all.push(unseen(OTHERS));
    }
    if all.is_empty() && (options.apiserver_version.is_some() || said.is_some()) {
        all.push(unseen(APISERVER));
    }
    for instance in &mut all {
        if let Some(said) = options.apiserver_version {
            match instance.minor {
                Some(seen) if seen != said => {
                    return Err(Error::OtherVersion { name: instance.name.clone(), seen, said });
                }
                _ => instance.minor = Some(said),
            }
        }
        let Some(said) = &said else { continue };
        if instance.minor.is_none() {
            return Err(Error::GatesWithoutVersion);
        }
        let pods = || objects.pods.values().filter(|pod| pod.node() == instance.name);
        if let Some(gate) = pods().find_map(|pod| pod.contradicts(said)) {
            return Err(Error::OtherGates { name: instance.name.clone(), gate });
        }
        // Which gates another version has, nobody says by naming some.
        if pods().any(ApiserverPod::emulates) {
            continue;
        }
        match instance.gates.as_ref().filter(|gates| gates.unreadable().is_none()) {
            Some(seen) => agree(&instance.name, seen, said)?,
            None => {
                let other = instance.gates.as_ref().is_some_and(FeatureGates::of_another_version);
                instance.gates = Some(said.clone().as_of_another_version(other));
            }
        }
        instance.unseen = None;
    }
    Ok(all)
}

/// The gates that the user says apiservers are started with.
fn said(options: &Options) -> Result<Option<FeatureGates>, Error> {
    let Some(text) = &options.apiserver_gates else { return Ok(None) };
    let gates = FeatureGates::from_args([format!("--feature-gates={text}").as_str()]);
    if let Some(why) = gates.unreadable() {
        return Err(Error::Gates(why.to_owned()));
    }
    // Whoever copies a whole command line names gates that are not judged; but none that is nearly one.
    let meant = |(name, _): (&str, bool)| Some((name.to_owned(), StreamGate::meant_by(name)?));
    let nearly = gates.iter().find_map(meant);
    match nearly {
        Some((name, meant)) => Err(Error::NoGate { name, meant }),
        None => Ok(Some(gates)),
    }
}

/// Whether what the user says is what a command line shows.
fn agree(name: &str, seen: &FeatureGates, said: &FeatureGates) -> Result<(), Error> {
    let differs = |gate: &&str| seen.get(gate) != said.get(gate);
    let hidden = seen.unreadable().map(|_| FEATURE_GATES);
    match hidden.or_else(|| judged_gates().find(differs)) {
        Some(gate) => Err(Error::OtherGates { name: name.to_owned(), gate }),
        None => Ok(()),
    }
}
