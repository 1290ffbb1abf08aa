//! The way to a cluster: kubectl's, or a pod's own.

use std::{ffi::OsString, path::PathBuf};

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
// Its group would be named like that of the command it is part of.
#[group(skip)]
pub struct Args {
    /// The kubeconfig file; else $KUBECONFIG, ~/.kube/config, or a pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; else its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig that was asked for cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    /// There is neither a kubeconfig nor a service account.
    #[error("no cluster to ask: neither a kubeconfig nor a pod's service account")]
    Nothing(#[source] Box<InferConfigError>),
    /// The client cannot be made.
    #[error("cannot connect to the cluster")]
    Client(#[source] Box<kube::Error>),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "Kubeconfig",
            Self::Nothing(_) => "NoCluster",
            Self::Client(_) => "Client",
        }
    }
}

impl Args {
    /// Whether any of it was given.
    pub fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// The same for the program helm.
    pub fn for_helm(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        if let Some(file) = &self.kubeconfig {
            args.extend(["--kubeconfig".into(), file.into()]);
        }
        if let Some(context) = &self.context {
            args.extend(["--kube-context".into(), context.into()]);
        }
        args
    }

    /// A client for the cluster.
    ///
    /// # Errors
    /// Where no configuration leads to one.
    pub async fn client(&self) -> Result<Client, Error> {
        let config = self.config().await?;
        Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
    }

    /// Where the cluster is, and who we are there.
    ///
    /// # Errors
    /// Where no configuration leads to one.
    pub async fn config(&self) -> Result<Config, Error> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if let Some(path) = &self.kubeconfig {
            let kubeconfig = Kubeconfig::read_from(path)?;
            return Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?);
        }
        // A context is a kubeconfig's: a service account must not silently stand in for it.
        if self.context.is_some() {
            return Ok(Config::from_kubeconfig(&options).await?);
        }
        Config::infer().await.map_err(|error| Error::Nothing(Box::new(error)))
    }
}
