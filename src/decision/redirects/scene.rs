//! Everything that a policy's conditions are judged from.

use std::collections::{BTreeMap, BTreeSet};

use super::survey::Survey;
use crate::decision::{
    apiserver::{Apiserver, ControlPlane, Unseen, how_to_tell},
    gate::Gate,
    migration::{Migration, Track},
    names::{NameSummary, SHOWN},
};

/// Everything a condition is judged from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// The release plan that the binaries follow.
    pub track: Track,
    /// The apiserver instances.
    pub instances: &'a [Apiserver],
    /// Their sum.
    pub plane: &'a ControlPlane,
    /// The nodes.
    pub survey: &'a Survey<'a>,
    /// Sluice itself turns the gate, one apiserver after the other.
    pub managed: bool,
}

impl Scene<'_> {
    /// The instances for which something holds, by name.
    pub(super) fn instances_where(&self, is: impl Fn(&Apiserver) -> bool) -> NameSummary<'_> {
        self.instances.iter().filter(|i| is(i)).map(|i| i.name.as_str()).collect()
    }

    pub(super) fn unseen(&self) -> Option<String> {
        let unseen = |i: &Apiserver| {
            i.minor.is_none() || i.gate(self.migration, self.track) == Gate::Unknown
        };
        let which = self.instances_where(unseen);
        let reasons: BTreeSet<&str> = self
            .instances
            .iter()
            .filter(|i| unseen(i))
            .filter_map(|i| i.unseen.as_ref().map(Unseen::reason))
            .collect();
        let reasons = Vec::from_iter(reasons).join(", ");
        match (which.is_empty(), reasons.as_str()) {
            (true, _) => None,
            (false, "") => Some(which.to_string()),
            (false, reasons) => Some(format!("{which} ({reasons})")),
        }
    }

    /// Whether only apiservers without a visible pod are unknown, as in managed control planes, and
    /// the known ones are alike.
    pub(super) fn only_managed_unseen(&self) -> bool {
        let known = |i: &Apiserver| {
            i.minor.is_some() && i.gate(self.migration, self.track) != Gate::Unknown
        };
        let managed = |i: &Apiserver| i.unseen == Some(Unseen::NoMirrorPod);
        let plane = self.plane;
        // A version that is not known may be another one.
        let differ = plane.oldest != plane.newest
            || plane.on_somewhere && plane.off_somewhere
            || plane.versions_unknown > 0 && self.instances.len() > 1;
        !self.instances.is_empty()
            && !differ
            && self.instances.iter().all(|i| known(i) || managed(i))
    }

    /// How to find out what cannot be seen of an apiserver: `otherwise`, unless its command line is
    /// seen and its image tells no version.
    pub(super) fn how_to_look(&self, otherwise: &str) -> String {
        let otherwise = format!("{otherwise}{}", how_to_tell(self.instances));
        let images: Vec<&str> = self.instances.iter().filter_map(Apiserver::unversioned).collect();
        let Some(image) = images.first() else { return otherwise };
        let only = self.instances.iter().all(|i| i.unseen.is_none() || i.unversioned().is_some());
        let tag = format!(
            "Look at the image {image:?}, whose tag tells no version: use a tag that does, or tell \
             it to sluice plan by --apiserver-version."
        );
        if only { tag } else { format!("{otherwise} {tag}") }
    }

    /// How the instances differ: each version and gate with one that has it, oldest first.
    pub(super) fn differences(&self) -> String {
        let mut alike: BTreeMap<_, NameSummary<'_>> = BTreeMap::new();
        for i in self.instances {
            let kind = (i.minor, i.gate(self.migration, self.track));
            alike.entry(kind).or_default().add(&i.name);
        }
        let mut text: Vec<String> = alike
            .iter()
            .take(SHOWN)
            .map(|((minor, gate), named)| {
                let minor = minor.map_or_else(|| "unknown".to_owned(), |minor| minor.to_string());
                format!("{minor} {} on {}", gate.as_str(), named.first_and_count())
            })
            .collect();
        if alike.len() > SHOWN {
            text.push(format!("{} more", alike.len() - SHOWN));
        }
        text.join(", ")
    }
}
