//! The options that say where the canaries are.

use crate::canary::{CanarySettings, SELECTOR};

/// Where the canaries are; without a namespace there are none.
#[derive(Clone, Debug, clap::Args)]
// Its group would be named like that of the command it is part of.
#[group(skip)]
#[command(next_help_heading = "Canaries")]
pub struct CanaryArgs {
    /// The namespace of the canaries. Without it nothing can be proven, and so nothing is changed.
    #[arg(long, value_name = "NAMESPACE")]
    canary_namespace: Option<String>,

    /// The labels of the canaries.
    #[arg(long, value_name = "LABELS", default_value = SELECTOR)]
    canary_selector: String,
}

impl CanaryArgs {
    /// Where the canaries are, if there are any.
    pub fn settings(self) -> Option<CanarySettings> {
        Some(CanarySettings { namespace: self.canary_namespace?, selector: self.canary_selector })
    }
}
