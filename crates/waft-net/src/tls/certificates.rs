//! The certificates that a server shows: found in a directory, chosen by the name that a client asks for.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SigningKey};
use webpki::{EndEntityCert, KeyUsage};

/// Files of a directory that are looked at.
const FILES_MAX: usize = 20_000;
/// Bytes of such a file.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The certificates of a directory and of those directly below it. A reload puts others in their place; what is
/// connected stays so.
///
/// A file may have any name: a certificate is known by the names it is for and finds its key, in its own file or in
/// another of the same directory, by trying. Beside that a file's own name counts, as Pushpin and Mongrel2 have it:
/// `www.example.com.crt`, `_.example.com.crt` for the names one level below, and what a listener takes as its default.
/// An OCSP response in a file of the same name with `.ocsp` is sent along.
pub struct Certificates {
    directory: PathBuf,
    provider: Arc<CryptoProvider>,
    names: ArcSwap<Names>,
}

/// Why a certificate of the directory is not used, or should not be.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CertificateProblem {
    path: PathBuf,
    reason: String,
}

/// Certificates of one name: of several kinds of key, the first that the client understands is taken.
type Choice = Vec<Arc<CertifiedKey>>;

#[derive(Default)]
struct Names {
    exact: HashMap<String, Choice>,
    /// By what follows the first label.
    wildcard: HashMap<String, Choice>,
    /// By the name of their file, without its extension.
    files: HashMap<String, Choice>,
    /// How many certificates there are.
    count: usize,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Certificates {
    /// The certificates of `directory`, and what is wrong with some.
    pub fn read(directory: &Path) -> (Self, Vec<CertificateProblem>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut problems = Vec::new();
        let names = Names::read(directory, &provider, &mut problems);
        (Self { directory: directory.to_owned(), provider, names: ArcSwap::from_pointee(names) }, problems)
    }

    /// Reads the directory again. If nothing in it can be used, what there was stays.
    pub fn reload(&self) -> Vec<CertificateProblem> {
        let mut problems = Vec::new();
        let names = Names::read(&self.directory, &self.provider, &mut problems);
        if names.count > 0 {
            self.names.store(Arc::new(names));
        } else if self.count() > 0 {
            let reason =
                "there is no certificate that can be used; those that were read before stay in force".to_owned();
            problems.push(CertificateProblem { path: self.directory.clone(), reason });
        }
        problems
    }

    /// How many certificates are in use.
    pub fn count(&self) -> usize {
        self.names.load().count
    }

    /// The directories whose changes matter.
    pub fn directories(&self) -> Vec<PathBuf> {
        directories(&self.directory)
    }

    /// The certificate for a client; `defaults` are names of files for those who ask for none that is known.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>, defaults: &[String]) -> Option<Arc<CertifiedKey>> {
        let names = self.names.load();
        let choice = names.find(hello.server_name(), defaults)?;
        let understood = choice.iter().find(|key| key.key.choose_scheme(hello.signature_schemes()).is_some());
        understood.or_else(|| choice.first()).map(Arc::clone)
    }
}

impl Names {
    fn read(directory: &Path, provider: &CryptoProvider, problems: &mut Vec<CertificateProblem>) -> Self {
        let mut names = Self::default();
        let mut found = Vec::new();
        for directory in directories(directory) {
            match Files::read(&directory, provider, problems) {
                Ok(files) => files.pair(&mut found, problems),
                Err(error) => {
                    let reason = format!("the directory of certificates cannot be read: {error}");
                    problems.push(CertificateProblem { path: directory, reason });
                }
            }
        }
        // What a file is called counts more than what others say they are for too.
        for by_file in [true, false] {
            for pair in &found {
                let of_file = is_host_name(&pair.stem).then(|| pair.stem.replacen("_.", "*.", 1));
                if by_file {
                    of_file.iter().for_each(|name| names.add(name, &pair.key));
                    names.files.entry(pair.stem.clone()).or_default().push(Arc::clone(&pair.key));
                } else {
                    let own = pair.names.iter().filter(|name| of_file.as_ref() != Some(name));
                    own.for_each(|name| names.add(name, &pair.key));
                }
            }
        }
        names.count = found.len();
        names
    }

    fn add(&mut self, name: &str, key: &Arc<CertifiedKey>) {
        let choice = match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.entry(rest.to_owned()),
            None => self.exact.entry(name.to_owned()),
        };
        choice.or_default().push(Arc::clone(key));
    }

    fn find(&self, name: Option<&str>, defaults: &[String]) -> Option<&Choice> {
        let known = name.map(str::to_ascii_lowercase).and_then(|name| {
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(wildcard)
        });
        let default = || defaults.iter().find_map(|file| self.files.get(file));
        // Who asks for no name gets what there is, if that is one.
        let only = || self.files.values().next().filter(|_| name.is_none() && self.count == 1);
        known.or_else(default).or_else(only)
    }
}

/// A certificate with its key.
struct Pair {
    stem: String,
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

/// What is in one directory.
#[derive(Default)]
struct Files {
    chains: Vec<(PathBuf, Vec<CertificateDer<'static>>)>,
    keys: Vec<(PathBuf, Arc<dyn SigningKey>)>,
}

impl Files {
    fn read(
        directory: &Path,
        provider: &CryptoProvider,
        problems: &mut Vec<CertificateProblem>,
    ) -> std::io::Result<Self> {
        let mut files = Self::default();
        let mut paths: Vec<_> = fs::read_dir(directory)?.take(FILES_MAX).flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let is_file = fs::metadata(&path).is_ok_and(|about| about.is_file() && about.len() <= FILE_SIZE_MAX);
            if !is_file {
                continue;
            }
            let refuse = |reason: String| CertificateProblem { path: path.clone(), reason };
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) => {
                    problems.push(refuse(format!("cannot be read: {error}")));
                    continue;
                }
            };
            match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
                Ok(chain) if chain.is_empty() => {}
                Ok(chain) => files.chains.push((path.clone(), chain)),
                Err(error) => problems.push(refuse(format!("it is no PEM file: {error}"))),
            }
            let key = PrivateKeyDer::from_pem_slice(&text).ok().map(|key| provider.key_provider.load_private_key(key));
            match key {
                Some(Ok(key)) => files.keys.push((path.clone(), key)),
                Some(Err(error)) => problems.push(refuse(format!("the key cannot be used: {error}"))),
                None => {}
            }
        }
        Ok(files)
    }

    /// Finds the key of each certificate.
    fn pair(self, found: &mut Vec<Pair>, problems: &mut Vec<CertificateProblem>) {
        // A certificate may lie there with and without those that lead to its authority.
        let mut longest: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (_, chain) in &self.chains {
            let first = chain.first().map(|first| first.to_vec()).unwrap_or_default();
            let length = longest.entry(first).or_default();
            *length = (*length).max(chain.len());
        }
        for (path, chain) in &self.chains {
            let Some(first) = chain.first() else { continue };
            if longest.get(first.as_ref()).is_some_and(|longest| *longest > chain.len()) {
                continue;
            }
            let refuse = |reason: String| CertificateProblem { path: path.clone(), reason };
            let names = match EndEntityCert::try_from(first) {
                Ok(certificate) => certificate.valid_dns_names().map(str::to_ascii_lowercase).collect::<Vec<_>>(),
                Err(error) => {
                    problems.push(refuse(format!("the certificate cannot be read: {error}")));
                    continue;
                }
            };
            match self.key_of(path, chain) {
                Some(key) => {
                    problems.extend(time_problem(first).map(refuse));
                    found.push(Pair { stem: stem(path), names, key: Arc::new(key) });
                }
                // The certificates of authorities lie there without a key, and are for no name.
                None if names.is_empty() => {}
                None => problems.push(refuse("no key in its directory fits it".to_owned())),
            }
        }
    }

    fn key_of(&self, path: &Path, chain: &[CertificateDer<'static>]) -> Option<CertifiedKey> {
        let same_name = |(other, _): &&(PathBuf, _)| stem(other) == stem(path);
        let (near, far): (Vec<_>, Vec<_>) = self.keys.iter().partition(same_name);
        let fits = near.into_iter().chain(far).find_map(|(_, key)| {
            let pair = CertifiedKey::new(chain.to_vec(), Arc::clone(key));
            pair.keys_match().is_ok().then_some(pair)
        });
        let mut pair = fits?;
        pair.ocsp = fs::read(path.with_extension("ocsp")).ok().filter(|response| !response.is_empty());
        Some(pair)
    }
}

/// What is wrong with the time of a certificate.
fn time_problem(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let usage = KeyUsage::server_auth();
    // Without an authority this always fails; which rule fails first is what tells.
    let judged =
        certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[], &[], UnixTime::now(), usage, None, None);
    match judged.err()? {
        webpki::Error::CertExpired { .. } => Some("the certificate has expired; renew it".to_owned()),
        webpki::Error::CertNotValidYet { .. } => Some("the certificate is not valid yet; look at the clock".to_owned()),
        _ => None,
    }
}

/// The directory itself, and those in it.
fn directories(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    let below = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    all.extend(below.filter(|path| !is_hidden(path) && path.is_dir()).take(FILES_MAX));
    all.sort_unstable();
    all
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn is_host_name(stem: &str) -> bool {
    let rest = stem.strip_prefix("_.").unwrap_or(stem);
    rest.contains('.') && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}
