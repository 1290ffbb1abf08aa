//! The options of the admission webhook.

use std::net::SocketAddr;

use crate::webhook::{
    Maker, WebhookSettings,
    rule::{Account, Accounts, Part},
};

/// How the webhook is served.
#[derive(Clone, Debug, clap::Args)]
// Its group would be named like that of the command it is part of.
#[group(skip)]
#[command(next_help_heading = "Admission webhook")]
pub struct Args {
    /// Where the webhook is served; without it there is none.
    #[arg(long, value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,

    /// The ServiceAccount of the remediators, in the namespace of the agents.
    #[arg(long, value_name = "NAME", default_value = "sluice-remediator")]
    remediator_service_account: String,

    /// The Service by which the apiserver reaches it.
    #[arg(long, value_name = "NAME", default_value = "sluice-webhook")]
    webhook_service: String,

    /// Another name for its certificate, for an apiserver that reaches the webhook by a URL: a DNS
    /// name or an address. May be given several times.
    #[arg(long, value_name = "NAME")]
    webhook_name: Vec<String>,

    /// The Secret of its certificate.
    #[arg(long, value_name = "NAME", default_value = "sluice-webhook")]
    webhook_secret: String,

    /// The ValidatingWebhookConfiguration that leads to it.
    #[arg(long, value_name = "NAME", default_value = "sluice-agents")]
    webhook_configuration: String,

    /// Who makes its certificate and keeps the configuration's caBundle.
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    webhook_certificate: Certificate,
}

/// Who makes the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Certificate {
    /// The operator, which renews it as well.
    #[default]
    Managed,
    /// Somebody else, such as cert-manager: the operator serves what is in the Secret.
    External,
}

impl Args {
    /// The webhook, if one is wanted, for agents of this account in this namespace.
    pub fn settings(self, namespace: String, agent: String) -> Option<WebhookSettings> {
        let all = vec![
            Account { account: agent, part: Part::Agent },
            Account { account: self.remediator_service_account, part: Part::Change },
        ];
        Some(WebhookSettings {
            listen: self.webhook_listen?,
            accounts: Accounts { namespace, all },
            service: self.webhook_service,
            more_names: self.webhook_name,
            secret: self.webhook_secret,
            configuration: self.webhook_configuration,
            maker: match self.webhook_certificate {
                Certificate::Managed => Maker::Managed,
                Certificate::External => Maker::External,
            },
        })
    }
}
