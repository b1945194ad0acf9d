//! Providers: where they are, and how calls to them authenticate.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Uri};
use zeroize::Zeroizing;

use super::files::Files;
use super::network::{Around, Network};
use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};
use crate::config::schema::{self, File, Preset};
use crate::upstream::{Adapter, Client, Credential, Endpoint, Provider};

/// The `api_key` that sends the caller's own `authorization` on.
const PASSTHROUGH: &str = "passthrough";

/// The providers by name; one with a problem is there, without a value.
pub(super) type Providers<'a> = HashMap<&'a str, Option<Arc<Provider>>>;

/// What the `providers` of a file mean.
pub(super) fn resolve<'a>(
    file: &'a File,
    written: &Written,
    around: &mut Around<'_, '_>,
    report: &mut Report,
) -> Providers<'a> {
    let list = Path::root().key("providers");
    let mut providers = Providers::new();
    for (i, provider) in file.providers.iter().enumerate() {
        let reader = Reader { path: list.index(i), provider };
        let base_url = reader.base_url(report);
        let network = Network { path: &reader.path, provider, base_url: base_url.as_ref() };
        let client = network.client(&file.limits, around, report);
        let resolved = reader.provider(base_url, client, around.files, report);
        let name = provider.name.as_str();
        if providers.insert(name, resolved.map(Arc::new)).is_some() {
            let path = reader.path.key("name");
            let shown = written.show(&path, name);
            report.add(path.clone(), format!("\"{shown}\" is the name of another provider too"));
        }
    }
    providers
}

/// One provider as written, and where.
struct Reader<'a> {
    path: Path,
    provider: &'a schema::Provider,
}

impl Reader<'_> {
    fn provider(
        &self,
        base_url: Option<Uri>,
        client: Option<Client>,
        files: &mut Files<'_>,
        report: &mut Report,
    ) -> Option<Provider> {
        let adapter = self.adapter(report);
        let credential = self.credential(files, report);
        Some(Provider {
            name: self.provider.name.as_str().into(),
            adapter: adapter?,
            convention: self.convention(),
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

    /// The provider's name in OpenTelemetry's registry; what is not there has the preset's, and what is only
    /// compatible with OpenAI is told as OpenAI.
    fn convention(&self) -> &'static str {
        match (self.provider.adapter, self.provider.preset) {
            (schema::Adapter::Anthropic, _) => "anthropic",
            (schema::Adapter::Gemini, _) | (_, Some(Preset::Gemini)) => "gcp.gemini",
            (_, Some(Preset::Azure | Preset::AzureDeployment)) => "azure.ai.openai",
            (_, Some(Preset::Bedrock)) => "aws.bedrock",
            (_, Some(Preset::Ollama)) => "ollama",
            (_, Some(Preset::Vllm)) => "vllm",
            (_, Some(Preset::LlamaCpp)) => "llama_cpp",
            (schema::Adapter::OpenAi, None) => "openai",
        }
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

    fn credential(&self, files: &mut Files<'_>, report: &mut Report) -> Option<Credential> {
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
                let text = files.read(&path, file, report)?;
                let text = std::str::from_utf8(&text).unwrap_or_default();
                (path, text.trim_end_matches(['\r', '\n']).to_owned().into())
            }
        };
        if key.expose().is_empty() {
            report.add(path, "the key is empty, or no text");
            return None;
        }
        let (name, scheme) = self.header();
        let value = Zeroizing::new(format!("{scheme}{}", key.expose()));
        match HeaderValue::from_str(&value) {
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
