//! Providers: where they are, and how calls to them authenticate.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::bound;
use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};
use crate::config::schema::{self, File, Preset};
use crate::upstream::{Adapter, Client, ClientSettings, Credential, Endpoint, Pools, Provider};

/// The `api_key` that sends the caller's own `authorization` on.
const PASSTHROUGH: &str = "passthrough";

/// The providers by name; one with a problem is there, without a value.
pub(super) type Providers<'a> = HashMap<&'a str, Option<Arc<Provider>>>;

/// What the `providers` of a file mean; one whose network is as it was keeps its connections.
pub(super) fn resolve<'a>(
    file: &'a File,
    written: &Written,
    earlier: &Pools,
    pools: &mut Pools,
    report: &mut Report,
) -> Providers<'a> {
    let list = Path::root().key("providers");
    let mut providers = Providers::new();
    for (i, provider) in file.providers.iter().enumerate() {
        let reader = Reader { path: list.index(i), provider, written, earlier };
        let resolved = reader.provider(file.limits.max_response_bytes, pools, report);
        let name = provider.name.as_str();
        if providers.insert(name, resolved.map(Arc::new)).is_some() {
            let path = reader.path.key("name");
            let shown = written.show(&path, name);
            report.add(path.clone(), format!("\"{shown}\" is the name of another provider too"));
        }
    }
    providers
}

/// The files that providers read.
pub(super) fn files(file: &File) -> Vec<PathBuf> {
    let of = |provider: &schema::Provider| [provider.api_key_file.clone(), provider.ca_file.clone()];
    file.providers.iter().flat_map(of).flatten().map(PathBuf::from).collect()
}

/// One provider as written, and where.
struct Reader<'a> {
    path: Path,
    provider: &'a schema::Provider,
    written: &'a Written,
    earlier: &'a Pools,
}

impl Reader<'_> {
    fn provider(
        &self,
        max_response_bytes: usize,
        pools: &mut Pools,
        report: &mut Report,
    ) -> Option<Provider> {
        let base_url = self.base_url(report);
        let adapter = self.adapter(report);
        let credential = self.credential(report);
        let client = self.client(max_response_bytes, pools, report);
        Some(Provider {
            name: self.provider.name.as_str().into(),
            adapter: adapter?,
            base_url: base_url?,
            credential: credential?,
            client: client?,
        })
    }

    fn adapter(&self, report: &mut Report) -> Option<Adapter> {
        let schema::Provider { adapter, preset, api_version, base_url, .. } = self.provider;
        let is_dated = matches!(preset, Some(Preset::Azure | Preset::AzureDeployment));
        if *adapter != schema::Adapter::OpenAi && preset.is_some() {
            report.add(self.path.key("preset"), "is for `adapter: openai`");
            return None;
        }
        if api_version.is_some() && !is_dated {
            report.add(self.path.key("api_version"), "is for `preset: azure_deployment` or `azure`");
            return None;
        }
        if api_version.is_none() && *preset == Some(Preset::AzureDeployment) {
            report.add(self.path.key("api_version"), "is required by `preset: azure_deployment`");
            return None;
        }
        if api_version.as_deref().is_some_and(|version| !version.bytes().all(is_plain)) {
            report.add(self.path.key("api_version"), "must be of letters, digits, dots and dashes");
            return None;
        }
        Some(match adapter {
            schema::Adapter::OpenAi => Adapter::OpenAi(Endpoint {
                path: preset.map_or_else(|| Endpoint::default().path, |preset| path_of(preset, base_url)),
                query: api_version.as_ref().map(|version| format!("api-version={version}").into()),
            }),
            schema::Adapter::Anthropic => Adapter::Anthropic,
            schema::Adapter::Gemini => Adapter::Gemini,
        })
    }

    /// The header that carries a key, and what stands before the key in it.
    fn header(&self) -> (HeaderName, &'static str) {
        match (self.provider.adapter, self.provider.preset) {
            (schema::Adapter::Anthropic, _) => (HeaderName::from_static("x-api-key"), ""),
            (schema::Adapter::Gemini, _) => (HeaderName::from_static("x-goog-api-key"), ""),
            (_, Some(Preset::Azure | Preset::AzureDeployment)) => (HeaderName::from_static("api-key"), ""),
            (schema::Adapter::OpenAi, _) => (AUTHORIZATION, "Bearer "),
        }
    }

    fn base_url(&self, report: &mut Report) -> Option<Uri> {
        let read = || {
            let uri: Uri = self.provider.base_url.trim_end_matches('/').parse().map_err(|_| "is no URL")?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) {
                return Err("must begin with https:// or http://");
            }
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                return Err("must hold no credentials: they belong in `api_key`");
            }
            if uri.query().is_some() {
                return Err("must have no query");
            }
            Ok(uri)
        };
        read().map_err(|what| report.add(self.path.key("base_url"), what)).ok()
    }

    fn credential(&self, report: &mut Report) -> Option<Credential> {
        let (path, key) = match (&self.provider.api_key, &self.provider.api_key_file) {
            (None, None) => return Some(Credential::None),
            (Some(_), Some(_)) => {
                report.add(self.path.key("api_key_file"), "cannot stand beside `api_key`: choose one");
                return None;
            }
            (Some(key), None) if key.expose() == PASSTHROUGH => {
                return self.passthrough(report);
            }
            (Some(key), None) => (self.path.key("api_key"), key.clone()),
            (None, Some(file)) => {
                let path = self.path.key("api_key_file");
                let text = self.file(&path, file, report)?;
                let text = String::from_utf8(text).unwrap_or_default();
                (path, text.trim_end_matches(['\r', '\n']).to_owned().into())
            }
        };
        if key.expose().is_empty() {
            report.add(path, "the key is empty, or no text");
            return None;
        }
        let (name, scheme) = self.header();
        match HeaderValue::try_from(format!("{scheme}{}", key.expose())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Some(Credential::Fixed { name, value })
            }
            Err(_) => {
                report.add(path, "the key holds a character that no header may hold");
                None
            }
        }
    }

    fn passthrough(&self, report: &mut Report) -> Option<Credential> {
        if self.provider.adapter == schema::Adapter::OpenAi {
            return Some(Credential::Passthrough);
        }
        let what = "cannot be `passthrough` here: callers send `authorization`, and this adapter's providers read another header";
        report.add(self.path.key("api_key"), what);
        None
    }

    fn client(&self, max_response_bytes: usize, pools: &mut Pools, report: &mut Report) -> Option<Client> {
        let extra_roots = self.extra_roots(report)?;
        let path = if extra_roots.is_empty() { self.path.clone() } else { self.path.key("ca_file") };
        let settings = ClientSettings {
            connect_timeout: Duration::from_millis(self.provider.connect_timeout_ms),
            first_byte_timeout: bound(self.provider.first_byte_timeout_ms),
            idle_timeout: bound(self.provider.idle_timeout_ms),
            max_response_bytes,
            extra_roots,
        };
        let client = pools.open(&self.provider.name, settings, self.earlier);
        client.map_err(|error| report.add(path, format!("TLS refuses it: {error}"))).ok()
    }

    fn extra_roots(&self, report: &mut Report) -> Option<Vec<CertificateDer<'static>>> {
        let Some(file) = &self.provider.ca_file else {
            return Some(Vec::new());
        };
        let path = self.path.key("ca_file");
        let pem = self.file(&path, file, report)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match roots {
            Ok(roots) if !roots.is_empty() => Some(roots),
            Ok(_) => {
                report.add(path, "holds no certificate (expected PEM)");
                None
            }
            Err(_) => {
                report.add(path, "is no valid PEM");
                None
            }
        }
    }

    fn file(&self, path: &Path, file: &str, report: &mut Report) -> Option<Vec<u8>> {
        fs::read(file)
            .map_err(|error| {
                let shown = self.written.show(path, file);
                report.add(path.clone(), format!("cannot read \"{shown}\": {error}"));
            })
            .ok()
    }
}

/// Where a server has its chat completions, below this base URL; a prefix that the URL already ends in is not
/// repeated.
fn path_of(preset: Preset, base_url: &str) -> Box<str> {
    let (prefix, rest) = match preset {
        Preset::Azure | Preset::Bedrock => ("/openai/v1", "/chat/completions"),
        Preset::AzureDeployment => ("/openai", "/deployments/{model}/chat/completions"),
        Preset::Gemini => ("/v1beta/openai", "/chat/completions"),
        Preset::Ollama | Preset::Vllm | Preset::LlamaCpp => ("/v1", "/chat/completions"),
    };
    let prefix = if base_url.trim_end_matches('/').ends_with(prefix) { "" } else { prefix };
    format!("{prefix}{rest}").into()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-'
}
