//! Each apiserver on its own, past every load balancer.

use std::{collections::BTreeSet, net::IpAddr};

use http::Uri;
use k8s_openapi::api::core::v1::{EndpointPort, EndpointSubset, Endpoints, Pod};
use kube::{Api, Client, Config, api::ListParams};

use super::Error;
use crate::{
    cluster::{ApiserverPod, POD_FIELDS},
    kubernetes::pages,
};

/// The name in an apiserver's certificate that does not depend on where it runs.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// The port of the Service `kubernetes`.
const HTTPS: &str = "https";

/// Where an apiserver answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiserverAddress {
    /// Its node, or where that is unknown its address.
    pub name: String,
    /// Its URL.
    pub url: String,
}

impl ApiserverAddress {
    /// The place behind a URL.
    ///
    /// # Errors
    /// Where it is no URL of a server.
    pub fn at(url: &str, pods: &[ApiserverPod]) -> Result<Self, Error> {
        let uri = parse(url)?;
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']);
        let known = name_of(bare, pods);
        let address = uri.authority().map_or(host, |authority| authority.as_str());
        Ok(Self { name: known.unwrap_or(address).to_owned(), url: url.to_owned() })
    }
}

/// A way to one apiserver.
#[derive(Clone)]
pub struct Instance {
    /// Its node, or where that is unknown its address.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// A client that asks this one and no other.
    pub client: Client,
}

/// Every apiserver that answers for the Service `kubernetes`, as the one behind `client` knows them.
///
/// # Errors
/// Where the Endpoints cannot be read, or name nobody.
pub async fn instances(config: &Config, client: &Client) -> Result<Vec<Instance>, Error> {
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default");
    let endpoints = endpoints.get("kubernetes").await.map_err(|source| Error::Read {
        what: "the Endpoints of the Service kubernetes".to_owned(),
        source: Box::new(source),
    })?;
    let places = places(&endpoints, &mirror_pods(client).await);
    if places.is_empty() {
        return Err(Error::NoApiserver);
    }
    places.iter().map(|place| connect(config, place)).collect()
}

/// The apiservers behind these URLs, for whoever cannot reach the addresses of the Service.
///
/// # Errors
/// Where one is no URL of a server.
pub async fn instances_at(
    config: &Config,
    client: &Client,
    urls: &[String],
) -> Result<Vec<Instance>, Error> {
    let pods = mirror_pods(client).await;
    urls.iter().map(|url| connect(config, &ApiserverAddress::at(url, &pods)?)).collect()
}

/// The way that users go to the apiservers. It may lead through a load balancer, which may do
/// something to upgrades that no apiserver does. `None` if `url` is that of one of `instances`.
///
/// # Errors
/// If `url` is not the URL of a server, or no client can be made for it.
pub fn in_front(
    config: &Config,
    url: &str,
    instances: &[Instance],
) -> Result<Option<Instance>, Error> {
    let address = |url: &str| {
        let uri = parse(url)?;
        let port = uri.port_u16().unwrap_or(443);
        Ok((uri.host().unwrap_or_default().to_ascii_lowercase(), port))
    };
    let (host, port) = address(url)?;
    for instance in instances {
        if address(&instance.url)? == (host.clone(), port) {
            return Ok(None);
        }
    }
    let place = ApiserverAddress { name: format!("{host}:{port}"), url: url.to_owned() };
    // The names in its certificate are those that users hold it to.
    let mut config = config.clone();
    config.cluster_url = parse(url)?;
    instance(config, &place).map(Some)
}

/// The apiservers' mirror pods. They only give names: where they cannot be read, addresses do.
async fn mirror_pods(client: &Client) -> Vec<ApiserverPod> {
    let api = Api::<Pod>::namespaced(client.clone(), "kube-system");
    match pages::list(&api, ListParams::default().fields(POD_FIELDS)).await {
        Ok(pods) => pods.iter().filter_map(ApiserverPod::read).collect(),
        Err(error) => {
            tracing::debug!(%error, "the apiservers' pods cannot be read");
            Vec::new()
        }
    }
}

/// Where the apiservers are, ready or not, by name.
pub fn places(endpoints: &Endpoints, pods: &[ApiserverPod]) -> Vec<ApiserverAddress> {
    let subsets = endpoints.subsets.iter().flatten();
    let places: BTreeSet<ApiserverAddress> = subsets
        .filter_map(|subset| Some((subset, port(subset)?)))
        .flat_map(|(subset, port)| {
            addresses(subset).map(move |address| ApiserverAddress {
                name: name_of(address, pods).unwrap_or(address).to_owned(),
                url: match address.parse() {
                    Ok(IpAddr::V6(address)) => format!("https://[{address}]:{port}"),
                    _ => format!("https://{address}:{port}"),
                },
            })
        })
        .collect();
    places.into_iter().collect()
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = &str> {
    let all = subset.addresses.iter().chain(&subset.not_ready_addresses).flatten();
    all.map(|address| address.ip.as_str())
}

fn port(subset: &EndpointSubset) -> Option<i32> {
    let ports = || subset.ports.iter().flatten();
    let named = |port: &&EndpointPort| port.name.as_deref() == Some(HTTPS);
    ports().find(named).or_else(|| ports().next()).map(|port| port.port)
}

fn name_of<'a>(address: &str, pods: &'a [ApiserverPod]) -> Option<&'a str> {
    pods.iter().find(|pod| pod.answers_at(address)).map(ApiserverPod::node)
}

/// A client for one apiserver, by the rights of `config`.
///
/// # Errors
/// Where its URL or what `config` says of certificates cannot be used.
pub fn connect(config: &Config, place: &ApiserverAddress) -> Result<Instance, Error> {
    let mut config = config.clone();
    config.cluster_url = parse(&place.url)?;
    // A certificate need not hold every address, such as that of a tunnel; a name of its own that
    // leads to the apiserver is another matter.
    if is_address(&config.cluster_url) {
        config.tls_server_name = Some(SERVER_NAME.to_owned());
    }
    instance(config, place)
}

/// The way to a place with what `config` says of certificates.
fn instance(mut config: Config, place: &ApiserverAddress) -> Result<Instance, Error> {
    // A refusal is an answer here, and asking again would be another canary.
    config.default_retry = false;
    let client = Client::try_from(config)
        .map_err(|source| Error::Client { url: place.url.clone(), source: Box::new(source) })?;
    Ok(Instance { name: place.name.clone(), url: place.url.clone(), client })
}

fn is_address(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn parse(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.parse().ok();
    // `10.0.0.1:6443` alone is a URI, too.
    uri.filter(|uri| matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some())
        .ok_or_else(|| Error::Url { url: url.to_owned() })
}
