//! Certificates, judged also while the clock cannot be trusted.
//!
//! A board without a clock chip wakes up in the past: every valid certificate looks "not yet valid", and a strict check would
//! keep it off the hub until somebody sets its clock. The rule: t = max(wall clock, build date, last trusted time on record).
//! Not yet valid at t: judged again at the certificate's own beginning (no attacker gains by a certificate that *will* be
//! valid and is signed by an authority we believe). Expired at t: refused, since true time is t or later. With a clock that is
//! synchronised the ordinary rule holds; a clock chip and the hub's own time may be wrong, and one that is behind must not keep the board
//! off the hub that would put it right. (One that is years ahead does, where the certificate has expired by then: as long as nobody knows
//! better, that is what it says.) Chain, name and signatures are checked in full always.
//!
//! What was accepted can be judged again on the same connection ([`Certificate`]): as soon as the clock is trusted, and before the hub's
//! time is.
//!
//! Files are read anew at each connect: a renewed certificate needs no restart.

use crate::clock::{BUILD_UNIX_S, Reading};
use crate::config::settings::Tls;
use crate::model::Quality;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The words for status and info: whether the hub's certificate is known to be valid by a trusted clock.
pub const CHECKED: &str = "checked";
pub const UNCHECKED: &str = "unchecked";
/// The system's authorities on Debian, Ubuntu, Alpine and Yocto; used without `ca_file`.
pub const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Certificates of one chain that may each be not yet valid.
const CHAIN_MAX: usize = 8;

/// What is wrong with the files; names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {kind} {path}: {cause}")]
    Read { kind: &'static str, path: PathBuf, cause: String },
    #[error(
        "{SYSTEM_CA_FILE} has no certificates, so no hub can be believed; install the package ca-certificates, or set ca_file to the hub's authority"
    )]
    NoSystemAuthorities,
    #[error("{path} has no certificate in PEM form")]
    NoCertificate { path: PathBuf },
    #[error("client certificate {path} and its key do not fit together: {cause}")]
    Client { path: PathBuf, cause: String },
    #[error("cannot build the certificate check: {0}")]
    Build(String),
}

/// When certificates are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgedAt {
    unix_s: u64,
    /// False: the true time may be later.
    exact: bool,
}

impl JudgedAt {
    /// `last_trusted_ms` is the latest time on record that came from a trusted clock.
    pub fn from_clock(reading: Reading, last_trusted_ms: i64) -> Self {
        let wall_s = reading.wall_ms.div_euclid(1000);
        let recorded_s = last_trusted_ms.div_euclid(1000);
        let floor = if reading.quality.trusted() { wall_s } else { wall_s.max(BUILD_UNIX_S).max(recorded_s) };
        Self { unix_s: u64::try_from(floor).unwrap_or(0), exact: reading.quality == Quality::Ntp }
    }
}

/// The server's certificate, once the connection stands.
pub struct Certificate {
    authorities: Arc<WebPkiServerVerifier>,
    accepted: Arc<OnceLock<Chain>>,
}

#[derive(Debug)]
struct Chain {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Certificate {
    /// Whether it is valid at an instant of the wall clock, without any leniency.
    /// # Errors
    /// Why it is not.
    pub fn valid_at(&self, wall_ms: i64) -> Result<(), Error> {
        let Some(Chain { end_entity, intermediates, name }) = self.accepted.get() else { return Ok(()) };
        let at = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(wall_ms).unwrap_or(0)));
        self.authorities.verify_server_cert(end_entity, intermediates, name, &[], at).map(|_| ())
    }
}

/// Reads the files and builds the client side of TLS.
pub fn client_config(tls: &Tls, judged_at: JudgedAt) -> Result<(ClientConfig, Certificate), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(authorities(tls.ca_file.as_deref())?, judged_at, provider.clone())?);
    let certificate = Certificate { authorities: verifier.inner.clone(), accepted: verifier.accepted.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Build(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((cert_file, key_file)) = &tls.client else { return Ok((builder.with_no_client_auth(), certificate)) };
    let chain = certificates("client certificate", cert_file)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: cert_file.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| unreadable("client key", key_file, e))?;
    let config = builder.with_client_auth_cert(chain, key);
    Ok((config.map_err(|e| TlsError::Client { path: cert_file.clone(), cause: e.to_string() })?, certificate))
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let path = ca_file.unwrap_or(Path::new(SYSTEM_CA_FILE));
    let found = match certificates("authority file", path) {
        Err(_) if ca_file.is_none() => return Err(TlsError::NoSystemAuthorities),
        found => found?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    match ca_file {
        _ if !roots.is_empty() => Ok(roots),
        None => Err(TlsError::NoSystemAuthorities),
        Some(path) => Err(TlsError::NoCertificate { path: path.into() }),
    }
}

fn certificates(kind: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    found.map_err(|e| unreadable(kind, path, e))
}

fn unreadable(kind: &'static str, path: &Path, cause: rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error as Pem;
    let cause = match cause {
        Pem::Io(e) => e.to_string(),
        Pem::NoItemsFound => format!("it holds no {kind} in PEM form"),
        _ => "it is not valid PEM".to_owned(),
    };
    TlsError::Read { kind, path: path.into(), cause }
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    judged_at: JudgedAt,
    accepted: Arc<OnceLock<Chain>>,
}

impl Verifier {
    fn new(roots: RootCertStore, judged_at: JudgedAt, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().map_err(|e| TlsError::Build(e.to_string()))?;
        Ok(Self { inner, judged_at, accepted: Arc::default() })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _rustls_clock: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut at = UnixTime::since_unix_epoch(Duration::from_secs(self.judged_at.unix_s));
        // Each certificate of the chain may move the instant forward once.
        for _ in 0..CHAIN_MAX {
            match self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, at) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if !self.judged_at.exact && not_before > at =>
                {
                    at = not_before;
                }
                Ok(verified) => {
                    let _ = self.accepted.set(Chain {
                        end_entity: end_entity.clone().into_owned(),
                        intermediates: intermediates.iter().map(|one| one.clone().into_owned()).collect(),
                        name: name.to_owned(),
                    });
                    return Ok(verified);
                }
                refused => return refused,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const DAY_S: i64 = 86_400;

    /// An authority and one certificate for `hub.test`, made by the openssl command, valid between two days from the build date.
    struct Pki {
        dir: PathBuf,
    }

    impl Pki {
        fn new(name: &str, from_day: i64, to_day: i64) -> Self {
            let dir = std::env::temp_dir().join(format!("shutterd-tls-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let date = |day: i64| {
                let at = chrono::DateTime::from_timestamp(BUILD_UNIX_S + day * DAY_S, 0).unwrap();
                at.format("%Y%m%d%H%M%SZ").to_string()
            };
            let pki = Self { dir };
            std::fs::write(
                pki.dir.join("ca.cnf"),
                "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\nunique_subject=no\n\
                 [p]\ncommonName=supplied\n[leaf]\nbasicConstraints=CA:FALSE\nsubjectAltName=DNS:hub.test\n",
            )
            .unwrap();
            std::fs::write(pki.dir.join("index"), "").unwrap();
            std::fs::write(pki.dir.join("serial"), "01\n").unwrap();
            let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
            pki.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 36500 -subj /CN=authority"));
            pki.openssl(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=hub.test"));
            let (from, to) = (date(from_day), date(to_day));
            pki.openssl(&format!(
                "ca -batch -config ca.cnf -extensions leaf -cert ca.pem -keyfile ca.key -startdate {from} -enddate {to} -in leaf.csr -out leaf.pem -notext"
            ));
            pki
        }

        fn openssl(&self, arguments: &str) {
            let run = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.dir).output().expect("the openssl command");
            assert!(run.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&run.stderr));
        }

        fn verdict(&self, authority: &Pki, host: &str, judged_at: JudgedAt) -> Result<(), Error> {
            let roots = authorities(Some(&authority.dir.join("ca.pem"))).unwrap();
            let verifier = Verifier::new(roots, judged_at, Arc::new(ring::default_provider())).unwrap();
            let leaf = &certificates("certificate", &self.dir.join("leaf.pem")).unwrap()[0];
            let name = ServerName::try_from(host.to_owned()).unwrap();
            verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::since_unix_epoch(Duration::ZERO)).map(|_| ())
        }
    }

    impl Drop for Pki {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    fn clock(wall_day: i64, quality: Quality, last_trusted_day: i64) -> JudgedAt {
        let wall_ms = (BUILD_UNIX_S + wall_day * DAY_S) * 1000;
        let reading = Reading { boottime_ms: 5, wall_ms, quality, uncertainty_ms: Some(0) };
        JudgedAt::from_clock(reading, (BUILD_UNIX_S + last_trusted_day * DAY_S) * 1000)
    }

    #[test]
    fn a_board_in_1970_believes_a_good_certificate_and_a_synchronised_one_looks_at_the_date() {
        let pki = Pki::new("future", 10, 400);
        let in_1970 = clock(-20_000, Quality::Unset, -30_000);
        assert_eq!(pki.verdict(&pki, "hub.test", in_1970), Ok(()));
        assert!(matches!(
            pki.verdict(&pki, "hub.test", clock(0, Quality::Ntp, 0)),
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }))
        ));
        assert_eq!(pki.verdict(&pki, "hub.test", clock(20, Quality::Ntp, 0)), Ok(()));
        for quality in [Quality::Rtc, Quality::Hub] {
            assert_eq!(pki.verdict(&pki, "hub.test", clock(0, quality, 0)), Ok(()), "a wrong {quality:?} keeps no board off its hub");
            assert!(pki.verdict(&pki, "hub.test", clock(401, quality, 0)).is_err(), "expired is expired");
        }
    }

    #[test]
    fn what_was_accepted_without_a_clock_can_be_judged_again_with_one() {
        let pki = Pki::new("again", 10, 400);
        let roots = authorities(Some(&pki.dir.join("ca.pem"))).unwrap();
        let in_1970 = clock(-20_000, Quality::Unset, -30_000);
        let verifier = Verifier::new(roots, in_1970, Arc::new(ring::default_provider())).unwrap();
        let certificate = Certificate { authorities: verifier.inner.clone(), accepted: verifier.accepted.clone() };
        let leaf = &certificates("certificate", &pki.dir.join("leaf.pem")).unwrap()[0];
        let name = ServerName::try_from("hub.test").unwrap();
        verifier.verify_server_cert(leaf, &[], &name, &[], UnixTime::since_unix_epoch(Duration::ZERO)).unwrap();
        let day = |day: i64| certificate.valid_at((BUILD_UNIX_S + day * DAY_S) * 1000);
        assert!(day(9).is_err() && day(11).is_ok() && day(399).is_ok() && day(401).is_err());
        assert!(certificate.valid_at(-1).is_err() && certificate.valid_at(i64::MAX).is_err());
    }

    #[test]
    fn an_expired_certificate_is_refused_with_any_clock() {
        let pki = Pki::new("expired", -400, -10);
        for judged_at in [clock(-20_000, Quality::Unset, -30_000), clock(-100, Quality::Saved, -100), clock(0, Quality::Ntp, 0)] {
            let verdict = pki.verdict(&pki, "hub.test", judged_at);
            assert!(matches!(verdict, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))), "{verdict:?}");
        }
    }

    #[test]
    fn what_expired_before_the_last_trusted_time_is_refused_even_after_the_clock_was_lost() {
        let pki = Pki::new("record", -10, 100);
        assert_eq!(pki.verdict(&pki, "hub.test", clock(-20_000, Quality::Unset, 50)), Ok(()));
        assert!(pki.verdict(&pki, "hub.test", clock(-20_000, Quality::Unset, 101)).is_err());
    }

    #[test]
    fn another_authority_or_another_name_is_refused_without_a_trusted_clock_too() {
        let (pki, other) = (Pki::new("mine", 10, 400), Pki::new("other", 10, 400));
        let in_1970 = clock(-20_000, Quality::Unset, -30_000);
        let verdict = pki.verdict(&other, "hub.test", in_1970);
        assert!(
            matches!(verdict, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))),
            "{verdict:?}"
        );
        let verdict = pki.verdict(&pki, "evil.test", in_1970);
        assert!(matches!(verdict, Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))), "{verdict:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let tls = Tls { ca_file: Some("/nonexistent/ca.pem".into()), client: None };
        let error = client_config(&tls, clock(0, Quality::Ntp, 0)).err().unwrap().to_string();
        assert_eq!(error, "cannot read authority file /nonexistent/ca.pem: No such file or directory (os error 2)");
    }
}
