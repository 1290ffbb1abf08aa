//! The way to a cluster: kubectl's, or a pod's own.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::timeout::TimeoutLayer;

/// The heading under which a command's help names these options.
const HEADING: &str = "Cluster";

/// Which cluster a process of Sluice works for.
#[derive(Clone, Debug, Default, clap::Args)]
// Its group would be named like that of the command it is part of.
#[group(skip)]
pub struct Args {
    /// The kubeconfig file; else $KUBECONFIG, ~/.kube/config, or a pod's service account.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; else its current one.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    context: Option<String>,
}

/// Which cluster a command asks, and as whom. The options are named and mean the same as kubectl's.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct UserArgs {
    #[command(flatten)]
    place: Args,

    /// The cluster of the kubeconfig; else that of the context.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    cluster: Option<String>,

    /// The user of the kubeconfig; else that of the context.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    user: Option<String>,

    /// The URL of the apiserver; else that of the cluster.
    #[arg(short, long, value_name = "URL", help_heading = HEADING)]
    server: Option<String>,

    /// The name in the apiserver's certificate; else the host of its URL.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    tls_server_name: Option<String>,

    /// Believe any certificate: whoever is between may then read and change what is said.
    #[arg(long, help_heading = HEADING)]
    insecure_skip_tls_verify: bool,

    /// Ask in the name of this user, or of system:serviceaccount:NAMESPACE:NAME.
    #[arg(long = "as", value_name = "USER", help_heading = HEADING)]
    as_user: Option<String>,

    /// Ask as a member of this group; repeatable.
    #[arg(long, value_name = "GROUP", requires = "as_user", help_heading = HEADING)]
    as_group: Vec<String>,

    /// How long the apiserver may say nothing to a request, such as 10s or 1m; 0 for any time.
    #[arg(
        long, value_name = "TIME", default_value = "10s", value_parser = patience,
        help_heading = HEADING
    )]
    request_timeout: Duration,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig that was asked for cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    /// There is neither a kubeconfig nor a service account.
    #[error("no cluster to ask: neither a kubeconfig nor a pod's service account ({in_cluster})")]
    Nothing {
        /// Why there is no service account.
        in_cluster: Box<InClusterError>,
        /// Why there is no kubeconfig, which is more likely a mistake.
        #[source]
        kubeconfig: Box<KubeconfigError>,
    },
    /// The server is no URL.
    #[error("--server {0:?} is not a URL such as https://10.0.0.1:6443")]
    Server(String),
    /// An option cannot be handed on to helm.
    #[error("helm cannot be told {0}: name a context of the kubeconfig instead (--context)")]
    NotForHelm(&'static str),
    /// The client cannot be made.
    #[error("cannot connect to the cluster")]
    Client(#[source] Box<kube::Error>),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "Kubeconfig",
            Self::Nothing { .. } => "NoCluster",
            Self::Server(_) => "ServerUrl",
            Self::NotForHelm(_) => "NotForHelm",
            Self::Client(_) => "Client",
        }
    }
}

/// Where a cluster is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The URL of its apiserver.
    pub server: String,
    /// The context of the kubeconfig; `None` where there is no kubeconfig.
    pub context: Option<String>,
    /// How long it may say nothing; `None` for any time.
    pub patience: Option<Duration>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        match &self.context {
            Some(context) => write!(f, " (context {context})"),
            None => Ok(()),
        }
    }
}

/// A cluster that can be asked.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where it is, and who we are there.
    pub config: Config,
    /// The same for people.
    pub place: Place,
}

impl Cluster {
    /// A client for requests that are answered at once: also an answer that stops half way ends in time.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn client(&self) -> Result<Client, Error> {
        let mut config = self.config.clone();
        config.read_timeout = self.place.patience;
        // Otherwise the time that a connection sat idle counts, too.
        config.reset_reader_on_write = true;
        self.limited(config)
    }

    /// A client for watches, which may be silent for as long as nothing changes once they have begun.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn watching_client(&self) -> Result<Client, Error> {
        self.limited(self.config.clone())
    }

    fn limited(&self, config: Config) -> Result<Client, Error> {
        let failed = |error| Error::Client(Box::new(error));
        let builder = ClientBuilder::try_from(config).map_err(failed)?;
        Ok(match self.place.patience {
            // Whatever is tried again counts as one request.
            Some(patience) => builder.with_layer(&TimeoutLayer::new(patience)).build(),
            None => builder.build(),
        })
    }
}

impl Args {
    /// Where the cluster is, and who we are there.
    ///
    /// # Errors
    /// Where no configuration leads to one.
    pub async fn config(&self) -> Result<Config, Error> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Ok(self.find(options).await?.0)
    }

    /// The configuration, and the name of the context that it is from.
    async fn find(&self, options: KubeConfigOptions) -> Result<(Config, Option<String>), Error> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let asked = [&options.context, &options.cluster, &options.user];
        // What is asked for is a kubeconfig's: a service account must not silently stand in for it.
        let only = self.kubeconfig.is_some() || asked.iter().any(|name| name.is_some());
        let used = match read {
            Ok(kubeconfig) => {
                let context = options.context.clone().or(kubeconfig.current_context.clone());
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map(|config| (config, context))
            }
            Err(error) => Err(error),
        };
        match used {
            Ok(found) => Ok(found),
            Err(error) if only => Err(error.into()),
            Err(kubeconfig) => {
                let own = Config::incluster().map_err(|in_cluster| Error::Nothing {
                    in_cluster: Box::new(in_cluster),
                    kubeconfig: Box::new(kubeconfig),
                });
                Ok((own?, None))
            }
        }
    }
}

impl UserArgs {
    /// The same for the program helm, which must not work for another cluster than we do.
    ///
    /// # Errors
    /// Where helm has no such option.
    pub fn for_helm(&self) -> Result<Vec<OsString>, Error> {
        let Self { place: Args { kubeconfig, context }, cluster, user, .. } = self;
        for (option, given) in [("--cluster", cluster), ("--user", user)] {
            if given.is_some() {
                return Err(Error::NotForHelm(option));
            }
        }
        let mut args: Vec<OsString> = Vec::new();
        if let Some(file) = kubeconfig {
            args.extend(["--kubeconfig".into(), file.into()]);
        }
        let texts = [
            ("--kube-context", context),
            ("--kube-apiserver", &self.server),
            ("--kube-tls-server-name", &self.tls_server_name),
            ("--kube-as-user", &self.as_user),
        ];
        for (option, given) in texts {
            if let Some(text) = given {
                args.extend([option.into(), text.into()]);
            }
        }
        for group in &self.as_group {
            args.extend(["--kube-as-group".into(), group.into()]);
        }
        if self.insecure_skip_tls_verify {
            args.push("--kube-insecure-skip-tls-verify".into());
        }
        Ok(args)
    }

    /// Whether a cluster was named.
    pub fn is_given(&self) -> bool {
        let Self { place: Args { kubeconfig, context }, cluster, user, server, as_user, .. } = self;
        let named = [context, cluster, user, server, as_user];
        let tls = self.insecure_skip_tls_verify || self.tls_server_name.is_some();
        kubeconfig.is_some() || tls || named.iter().any(|name| name.is_some())
    }

    /// The way to the cluster. Nothing is asked yet.
    ///
    /// # Errors
    /// Where no configuration leads to one.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        let options = KubeConfigOptions {
            context: self.place.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let server = match &self.server {
            None => None,
            Some(text) => Some(url(text).ok_or_else(|| Error::Server(text.clone()))?),
        };
        let (mut config, context) = match (self.place.find(options).await, server.clone()) {
            // A server needs no kubeconfig.
            (Err(Error::Nothing { .. }), Some(server)) => (Config::new(server), None),
            (found, _) => found?,
        };
        if let Some(server) = server {
            config.cluster_url = server;
        }
        if let Some(name) = &self.tls_server_name {
            config.tls_server_name = Some(name.clone());
        }
        config.accept_invalid_certs |= self.insecure_skip_tls_verify;
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups =
                Some(self.as_group.clone()).filter(|groups| !groups.is_empty());
        }
        let patience = Some(self.request_timeout).filter(|patience| !patience.is_zero());
        config.connect_timeout = patience;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let place = Place { server, context, patience };
        Ok(Cluster { config, place })
    }
}

fn url(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    (known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// A time to wait, as people write it.
///
/// # Errors
/// Where it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(signed).map_err(|_| "a time to wait cannot be negative".to_owned())
}

/// The same for `--request-timeout`, where a number alone is one of seconds, as it is to kubectl.
fn patience(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, seconds) in [("60s", Some(60)), ("2m", Some(120)), ("-1s", None), ("soon", None)]
        {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
        for (text, seconds) in [("0", Some(0)), ("5", Some(5)), ("1m", Some(60)), ("-5", None)] {
            assert_eq!(patience(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: UserArgs,
    }

    const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: near
contexts:
- {name: near, context: {cluster: a, user: jane}}
- {name: far, context: {cluster: b, user: jane}}
clusters:
- {name: a, cluster: {server: 'https://a.example:6443'}}
- {name: b, cluster: {server: 'https://b.example:6443'}}
users:
- {name: jane, user: {token: t}}
";

    async fn cluster(more: &[&str]) -> Result<Cluster, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KUBECONFIG).unwrap();
        let line = [&["x", "--kubeconfig", file.path().to_str().unwrap()][..], more].concat();
        let Line { args } = clap::Parser::parse_from(line);
        args.cluster().await
    }

    #[tokio::test]
    async fn the_options_mean_what_they_mean_to_kubectl() {
        for (more, place) in [
            (&[][..], "https://a.example:6443 (context near)"),
            (&["--context", "far"], "https://b.example:6443 (context far)"),
            (&["--cluster", "b"], "https://b.example:6443 (context near)"),
            (&["-s", "https://c.example"], "https://c.example (context near)"),
        ] {
            assert_eq!(cluster(more).await.unwrap().place.to_string(), place, "{more:?}");
        }
        let asked = ["--as", "joe", "--as-group", "a", "--as-group", "b", "--request-timeout", "0"];
        let Cluster { config, place } = cluster(&asked).await.unwrap();
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("joe"));
        let groups = config.auth_info.impersonate_groups.unwrap();
        assert_eq!((groups, place.patience), (vec!["a".to_owned(), "b".to_owned()], None));
    }

    #[test]
    fn helm_works_for_the_same_cluster_or_not_at_all() {
        let helm = |more: &[&str]| {
            let Line { args } = clap::Parser::parse_from([&["x"][..], more].concat());
            args.for_helm().map_err(|error| error.reason())
        };
        assert_eq!(helm(&[]).unwrap(), Vec::<OsString>::new());
        let all = helm(&["--kubeconfig", "k", "--context", "c", "-s", "https://a", "--as", "joe"]);
        let expected = [
            "--kubeconfig",
            "k",
            "--kube-context",
            "c",
            "--kube-apiserver",
            "https://a",
            "--kube-as-user",
            "joe",
        ];
        assert_eq!(all.unwrap(), expected.map(OsString::from));
        assert_eq!(helm(&["--cluster", "b"]), Err("NotForHelm"));
        assert_eq!(helm(&["--user", "b"]), Err("NotForHelm"));
    }

    #[tokio::test]
    async fn what_leads_nowhere_is_an_error() {
        for (more, reason) in [
            (&["--context", "none"][..], "Kubeconfig"),
            (&["--cluster", "none"], "Kubeconfig"),
            (&["--server", "c.example"], "ServerUrl"),
            (&["--server", "ftp://c.example"], "ServerUrl"),
        ] {
            let error = cluster(more).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{more:?}");
        }
    }
}
