//! What is in the Secret, read and made.
//!
//! Nothing here can be printed: a private key must not reach a log by somebody's `{:?}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::rotation::{AUTHORITY_LIFETIME, Held, SERVING_LIFETIME, Serving, Step, Validity};

/// The authorities that an apiserver should trust, the newest first.
pub const CA: &str = "ca.crt";
/// The key of the first of them. Only a managed Secret has it.
const CA_KEY: &str = "ca.key";
/// The certificate that is served, and the chain behind it.
const CERTIFICATE: &str = "tls.crt";
/// Its key.
const KEY: &str = "tls.key";

/// Why a Secret is of no use. Never says what is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry is missing or empty.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// An entry is not what it should be.
    #[error("its {0} cannot be read")]
    Malformed(&'static str),
    /// The certificate and its key do not belong together, or cannot be used.
    #[error("its tls.crt and tls.key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Error {
    /// A short, stable name for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "CertificateMissing",
            Self::Malformed(_) => "CertificateMalformed",
            Self::Unusable(_) => "CertificateUnusable",
            Self::Make(_) => "CertificateMake",
        }
    }
}

/// A certificate that can be served.
pub struct Pair {
    /// For TLS.
    pub key: CertifiedKey,
    /// The end of its validity.
    pub until: Timestamp,
}

/// The serving certificate of a Secret, whoever has made it.
///
/// # Errors
/// Where there is none that could be served.
pub fn pair(secret: &Secret, provider: &CryptoProvider) -> Result<Pair, Error> {
    let chain = certificates(secret, CERTIFICATE)?;
    let first = chain.first().ok_or(Error::Missing(CERTIFICATE))?;
    let until = validity(&parse(first, CERTIFICATE)?, CERTIFICATE)?.until;
    let key = PrivateKeyDer::from_pem_slice(entry(secret, KEY)?);
    let key = key.map_err(|_| Error::Malformed(KEY))?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(Error::Unusable)?;
    Ok(Pair { key, until })
}

/// The facts by which it is decided what to do with a Secret of our own. What cannot be read is not
/// there.
pub fn held(secret: &Secret, provider: &CryptoProvider) -> Held {
    let authorities = authorities(secret);
    let parsed: Vec<_> = authorities.iter().filter_map(|der| parse(der, CA).ok()).collect();
    let serving = pair(secret, provider).ok().and_then(|pair| {
        let leaf = parse(pair.key.end_entity_cert().ok()?, CERTIFICATE).ok()?;
        let signed = |issuer: &X509Certificate<'_>| {
            issuer.subject() == leaf.issuer()
                && leaf.verify_signature(Some(issuer.public_key())).is_ok()
        };
        Some(Serving {
            validity: validity(&leaf, CERTIFICATE).ok()?,
            names: names(&leaf),
            issuer: parsed.iter().position(signed),
        })
    });
    Held {
        signs: signer(secret, authorities.first()).is_ok(),
        authorities: parsed.iter().filter_map(|ca| validity(ca, CA).ok()).collect(),
        serving,
    }
}

/// The authorities in the bundle that can be read as such.
pub fn authorities(secret: &Secret) -> Vec<CertificateDer<'static>> {
    let all = certificates(secret, CA).unwrap_or_default();
    let usable = |der: &CertificateDer<'_>| {
        parse(der, CA).is_ok_and(|ca| ca.is_ca() && validity(&ca, CA).is_ok())
    };
    all.into_iter().filter(usable).collect()
}

/// Carries out a step: what the Secret is to hold after it, or none where that is what it holds.
///
/// # Errors
/// Where a certificate cannot be made.
pub fn perform(
    step: Step,
    before: Option<&Secret>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Option<BTreeMap<String, ByteString>>, Error> {
    let mut data = before.and_then(|secret| secret.data.clone()).unwrap_or_default();
    let mut bundle = before.map(authorities).unwrap_or_default();
    if !matches!(step, Step::Issue) {
        let valid = |der: &CertificateDer<'_>| {
            parse(der, CA).and_then(|ca| validity(&ca, CA)).is_ok_and(|of| now < of.until)
        };
        bundle.retain(valid);
    }
    let signer = match step {
        Step::Keep(_) => return Ok(None),
        Step::Forget => None,
        Step::Begin | Step::Join => {
            let key = KeyPair::generate()?;
            let made = authority(now)?.self_signed(&key)?;
            data.insert(CA_KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
            bundle.insert(0, made.der().clone());
            let issuer = Issuer::from_ca_cert_der(made.der(), key)?;
            (step == Step::Begin).then_some(issuer)
        }
        Step::Issue => {
            let first = bundle.first();
            Some(before.map_or(Err(Error::Missing(CA_KEY)), |secret| signer(secret, first))?)
        }
    };
    if let Some(issuer) = signer {
        let key = KeyPair::generate()?;
        let made = leaf(names, now)?.signed_by(&key, &issuer)?;
        data.insert(CERTIFICATE.to_owned(), ByteString(made.pem().into_bytes()));
        data.insert(KEY.to_owned(), ByteString(key.serialize_pem().into_bytes()));
    }
    data.insert(CA.to_owned(), ByteString(encode(&bundle).into_bytes()));
    Ok(Some(data))
}

/// The first authority with its key, where the Secret has one that is its own.
fn signer(
    secret: &Secret,
    first: Option<&CertificateDer<'static>>,
) -> Result<Issuer<'static, KeyPair>, Error> {
    let first = first.ok_or(Error::Missing(CA))?;
    let text = std::str::from_utf8(entry(secret, CA_KEY)?);
    let text = text.map_err(|_| Error::Malformed(CA_KEY))?;
    let key = KeyPair::from_pem(text).map_err(|_| Error::Malformed(CA_KEY))?;
    let certificate = parse(first, CA)?;
    if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(Error::Malformed(CA_KEY));
    }
    Ok(Issuer::from_ca_cert_der(first, key)?)
}

fn authority(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Two authorities of one name would make Go's verifier try both, which is well, but no person
    // could tell them apart.
    params.distinguished_name.push(DnType::CommonName, format!("sluice webhook {now:.0}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params, Validity::starting(now, AUTHORITY_LIFETIME));
    Ok(params)
}

fn leaf(names: &BTreeSet<String>, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "sluice webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    date(&mut params, Validity::starting(now, SERVING_LIFETIME));
    Ok(params)
}

fn date(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let of = |time: Timestamp| {
        epoch + std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    (params.not_before, params.not_after) = (of(validity.from), of(validity.until));
}

fn entry<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a [u8], Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.map(|bytes| bytes.0.as_slice()).filter(|bytes| !bytes.is_empty());
    bytes.ok_or(Error::Missing(key))
}

fn certificates(secret: &Secret, key: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    parse_pem(entry(secret, key)?).ok_or(Error::Malformed(key))
}

/// The certificates of a PEM text; none where any is broken.
pub fn parse_pem(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>, key: &'static str) -> Result<X509Certificate<'a>, Error> {
    let parsed = parse_x509_certificate(der.as_ref());
    parsed.map(|(_, certificate)| certificate).map_err(|_| Error::Malformed(key))
}

fn validity(certificate: &X509Certificate<'_>, key: &'static str) -> Result<Validity, Error> {
    let validity = certificate.validity();
    let [from, until] = [validity.not_before, validity.not_after]
        .map(|time| Timestamp::from_second(time.timestamp()).map_err(|_| Error::Malformed(key)));
    Ok(Validity { from: from?, until: until? })
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// The bundle as PEM, as `ca.crt` and `caBundle` hold it.
fn encode(bundle: &[CertificateDer<'_>]) -> String {
    let blocks: Vec<_> = bundle.iter().map(|der| Pem::new("CERTIFICATE", der.to_vec())).collect();
    pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF))
}
