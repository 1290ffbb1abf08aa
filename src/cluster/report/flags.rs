//! The flags that ought to be set, for those who set them: what the ConfigMap holds.

use std::collections::BTreeMap;

use serde_json::json;

use super::Moment;
use crate::{
    decision::{
        condition::ConditionStatus,
        migration::STREAMING_REDIRECTS,
        redirects::{
            flags::{self, Advice},
            policy::GateWish,
        },
    },
    kubernetes::feature_gates::Setting,
};

impl Moment<'_> {
    /// What is published of the flags, as the policy that owns the gate wants them; without one, as
    /// the migration ends. Keys of one line are for scripts, `flags.json` is for programs.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let facts = self.cluster.owner_facts();
        let wish = facts.and_then(|facts| facts.gate).unwrap_or(GateWish::Disabled);
        let track = facts.map(|facts| facts.track).unwrap_or_default();
        let judgement = self.owner();
        let safe = &judgement.safe_to_disable;
        let gate = STREAMING_REDIRECTS.gate;
        let may = wish == GateWish::Enabled
            || (safe.status == ConditionStatus::True && self.cluster.lost.is_none());
        // What is not safe now must not be copied by a machine that reads no reasons.
        let setting = judgement
            .plane
            .newest
            .filter(|_| may)
            .and_then(|minor| flags::setting(&STREAMING_REDIRECTS, track, minor, wish));
        let feature_gates = match setting {
            Some(Setting::Off) => format!("{gate}=false"),
            Some(Setting::On) => format!("{gate}=true"),
            Some(Setting::Default) | None => String::new(),
        };
        let remove = match setting {
            Some(Setting::Default) => gate,
            _ => "",
        };
        let advice = flags::advice(&STREAMING_REDIRECTS, track, wish);
        let rows: Vec<_> = advice.iter().map(row).collect();
        let json = json!({"safeToDisable": safe.status == ConditionStatus::True, "versions": rows});
        let entries = [
            ("safe-to-disable", may.to_string()),
            ("reason", safe.reason.to_owned()),
            ("kube-apiserver.feature-gates", feature_gates),
            ("kube-apiserver.feature-gates.remove", remove.to_owned()),
            ("kubelet.remove", format!("--{}", STREAMING_REDIRECTS.flag)),
            ("flags.json", serde_json::to_string_pretty(&json).unwrap_or_default()),
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }
}

fn row(advice: &Advice) -> serde_json::Value {
    json!({
        "component": advice.component,
        "from": advice.from.to_string(),
        "to": advice.to.map(|minor| minor.to_string()),
        "set": advice.set,
        "remove": advice.remove,
        "note": advice.note,
    })
}
