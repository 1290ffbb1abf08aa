//! The certificate that is served at the moment; it can be replaced while connections come in.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The certificate that is served; clones share it.
#[derive(Clone, Default)]
pub struct Serving(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Serving {
    /// Serves this certificate from now on. Tells whether it is another than before.
    pub fn replace(&self, key: CertifiedKey) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let same = current.as_ref().is_some_and(|current| current.cert == key.cert);
        *current = Some(Arc::new(key));
        !same
    }

    /// TLS with it. Nothing is negotiated but HTTP/1.1: an apiserver asks one thing at a time.
    ///
    /// # Errors
    /// Where the provider has no version of TLS, which ours has.
    pub fn tls(&self, provider: Arc<CryptoProvider>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// Says nothing about the key.
impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Serving")
    }
}
