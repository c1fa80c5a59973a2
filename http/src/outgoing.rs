//! Calls out: the one way in which clients of other parties are made. TLS by rustls over ring; whom it trusts are the
//! authorities of this machine, and those of a file that the configuration names.

use reqwest::ClientBuilder;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// The authorities of this machine; none of them is no error, because calls without TLS need none.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    roots
});

/// Whom outgoing calls trust.
#[derive(Clone, Debug)]
pub struct Trust(ClientConfig);

/// Why a file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("E5014: {file}: {reason}; expected PEM with the certificates of authorities")]
pub struct TrustError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Trust {
    /// The authorities of this machine only.
    #[must_use]
    pub fn system() -> Self {
        Self::of(SYSTEM.clone())
    }

    /// The authorities of this machine, and those of `ca_file`.
    pub fn with(ca_file: &Path) -> Result<Self, TrustError> {
        let wrong = |reason: String| TrustError { file: ca_file.display().to_string(), reason };
        let text = std::fs::read(ca_file).map_err(|error| wrong(error.to_string()))?;
        let mut roots = SYSTEM.clone();
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong("it holds no certificate".to_owned()));
        }
        Ok(Self::of(roots))
    }

    fn of(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("ring has what TLS 1.2 and 1.3 need");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(config)
    }

    /// A client of one party: no redirects, because a call must reach whom the configuration names, and no proxy.
    #[expect(clippy::disallowed_methods, reason = "the one place where clients are made")]
    pub fn builder(&self) -> ClientBuilder {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
    }
}

/// Why a call was not answered, down to its cause; a certificate that is not trusted has a code and a cure.
#[must_use]
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut deeper = std::error::Error::source(&error);
    while let Some(cause) = deeper {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        deeper = cause.source();
    }
    if text.contains("invalid peer certificate") {
        text = format!("E5015: {text}; if it is right, name its authority with tls.ca_file");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused_by_name() {
        let missing = Trust::with(Path::new("nowhere.pem")).unwrap_err().to_string();
        assert!(missing.starts_with("E5014: nowhere.pem: "), "{missing}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for (text, reason) in [
            ("", "it holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nnonsense\n", "missing section end"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "BadEncoding"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Trust::with(&file).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
