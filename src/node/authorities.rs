//! The authorities that the node's own programs trust.
//!
//! Go's `crypto/x509` finds them like this on Linux (`root_linux.go`, `root_unix.go`), and the kubelet
//! is a Go program. A kubelet with `SSL_CERT_FILE` or `SSL_CERT_DIR` reads others, which are not seen
//! here.

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::host::Host;

/// The first of these that can be read is taken.
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// And the files of the first of these folders that has any. Newer Go takes those of both.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

impl Host {
    /// The certificates that the node trusts, as far as they are below `/etc`; those that are no
    /// certificates are left out.
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        let of_file = |path: &str| {
            let pem = std::fs::read(self.resolved(path)).ok()?;
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            Some(certificates.collect::<Vec<_>>())
        };
        let mut trusted = FILES.into_iter().find_map(of_file).unwrap_or_default();
        let of_folder = |folder: &str| {
            let entries = std::fs::read_dir(self.resolved(folder)).into_iter().flatten();
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let found: Vec<_> =
                names.filter_map(|name| of_file(&format!("{folder}/{name}"))).flatten().collect();
            (!found.is_empty()).then_some(found)
        };
        let beside = FOLDERS.into_iter().find_map(of_folder).unwrap_or_default();
        let beside: Vec<_> = beside.into_iter().filter(|known| !trusted.contains(known)).collect();
        trusted.extend(beside);
        trusted
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(["authority".to_owned()]).unwrap().self_signed(&key).unwrap()
    }

    #[test]
    fn they_are_where_the_distributions_have_them() {
        let [bundled, beside] = [certificate(), certificate()];
        for (bundle, link) in [
            ("etc/ssl/certs/ca-certificates.crt", None),
            (
                "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                Some("etc/pki/tls/certs/ca-bundle.crt"),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let host = Host::new(folder.path().to_owned());
            assert_eq!(host.authorities(), []);
            let path = |path: &str| folder.path().join(path);
            fs::create_dir_all(path(bundle).parent().unwrap()).unwrap();
            fs::write(path(bundle), format!("# a comment\n{}", bundled.pem())).unwrap();
            if let Some(link) = link {
                fs::create_dir_all(path(link).parent().unwrap()).unwrap();
                symlink(format!("/{bundle}"), path(link)).unwrap();
            }
            assert_eq!(host.authorities(), [bundled.der().clone()], "{bundle}");
            let in_folder = path(link.unwrap_or(bundle)).with_file_name("own.pem");
            fs::write(in_folder, beside.pem()).unwrap();
            assert_eq!(host.authorities().len(), 2, "{bundle}");
        }
    }
}
