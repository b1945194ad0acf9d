//! Names in `models`, and what they stand for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::provider::Providers;
use super::{bound, health, limits};
use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report, did_you_mean};
use crate::config::schema::{self, File};
use crate::signing::Secrets;
use crate::telemetry::Cost;
use crate::upstream::{Credential, DirectModel, ResponseFormat};

/// What a name in `models` stands for.
enum Named {
    /// A direct model; without a value when it has a problem, which is reported where it is.
    Direct(Option<Arc<DirectModel>>),
    Ensemble,
}

/// The bound on an answer, in tokens, where there has to be one and nobody said it.
const MAX_TOKENS: u64 = 4096;
/// How long a model's name may be, in bytes: it goes out in a header.
const MAX_NAME: usize = 256;

/// Resolves names: first those of direct models, then what ensembles make of them.
pub(super) struct Resolver<'a> {
    pub(super) file: &'a File,
    pub(super) written: &'a Written,
    models: HashMap<&'a str, Named>,
    pub(super) report: &'a mut Report,
}

impl<'a> Resolver<'a> {
    /// A resolver that knows no name yet.
    pub(super) fn new(file: &'a File, written: &'a Written, report: &'a mut Report) -> Self {
        Self { file, written, models: HashMap::new(), report }
    }

    /// Learns every name; the direct models, in the file's order.
    pub(super) fn models(&mut self, providers: &Providers<'_>, secrets: &Secrets) -> Vec<Arc<DirectModel>> {
        let list = Path::root().key("models");
        let mut direct = Vec::new();
        for (i, model) in self.file.models.iter().enumerate() {
            let path = list.index(i);
            let named = if model.ensemble.is_some() {
                Named::Ensemble
            } else {
                Named::Direct(self.direct_model(model, &path, providers, secrets))
            };
            if let Named::Direct(Some(model)) = &named {
                direct.push(Arc::clone(model));
            }
            self.name(&model.display_name, named, path.key("display_name"));
        }
        if let Some(ad_hoc) = &self.file.overrides.ad_hoc {
            let path = Path::root().key("overrides").key("ad_hoc").key("alias");
            self.name(&ad_hoc.alias, Named::Ensemble, path);
        }
        direct
    }

    /// Learns a name; the first to have it keeps it.
    fn name(&mut self, name: &'a str, named: Named, path: Path) {
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            let what = format!("must be of at most {MAX_NAME} bytes, without control characters");
            self.report.add(path.clone(), what);
        }
        match self.models.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(named);
            }
            Entry::Occupied(_) => {
                let shown = self.written.show(&path, name);
                let what = format!("\"{shown}\" is the name of another model too");
                self.report.add(path, what);
            }
        }
    }

    fn direct_model(
        &mut self,
        model: &schema::Model,
        path: &Path,
        providers: &Providers<'_>,
        secrets: &Secrets,
    ) -> Option<Arc<DirectModel>> {
        // Where one is missing, the structure has been reported.
        let provider = model.provider.as_deref()?;
        let found = providers.get(provider);
        if found.is_none() {
            let list = Path::root().key("providers");
            let names = self.file.providers.iter().map(|p| p.name.as_str());
            let known = literal(names.enumerate(), &list, "name", self.written);
            self.unknown(path.key("provider"), "provider", provider, &known);
        }
        let model_name = model.model_name.clone()?;
        if model_name.contains(char::is_control) {
            self.report
                .add(path.key("model_name"), "must be without control characters: it goes out in a header");
        }
        let written = self.file.providers.iter().find(|known| known.name == provider);
        let rules =
            self.request(&model.request, written.and_then(|known| known.preset), &path.key("request"));
        let is_for_anthropic = written.is_some_and(|known| known.adapter == schema::Adapter::Anthropic);
        if model.max_tokens_default.is_some() && written.is_some() && !is_for_anthropic {
            self.report.add(path.key("max_tokens_default"), "is for models of `adapter: anthropic`");
        }
        let is_passed =
            found.and_then(Option::as_ref).is_some_and(|p| matches!(p.credential, Credential::Passthrough));
        if is_passed && model.background_check.is_some() {
            let what = "cannot ask for nobody: the provider's `api_key` is `passthrough`";
            self.report.add(path.key("background_check"), what);
        }
        let is_marked = written.is_some_and(|known| self.is_marked(known, &model_name));
        let cooldown = health::cooldown(&model.cooldown, path, self.report);
        let background_check = health::background_check(model, path, self.report);
        let rate_limit = limits::of_model(model, path, self.report);
        Some(Arc::new(DirectModel {
            name: model.display_name.as_str().into(),
            provider: found?.clone()?,
            model_name,
            timeout: bound(model.timeout),
            retries: model.retries,
            cooldown: cooldown?,
            rate_limit,
            background_check,
            response_format: match model.response_format {
                schema::ResponseFormat::None => ResponseFormat::None,
                schema::ResponseFormat::JsonObject => ResponseFormat::JsonObject,
                schema::ResponseFormat::JsonSchema => ResponseFormat::JsonSchema,
            },
            rules,
            max_tokens_default: model.max_tokens_default.unwrap_or(MAX_TOKENS),
            cost: model.cost.map(cost),
            marker: is_marked.then(|| secrets.clone()),
        }))
    }

    /// Whether calls to this model carry a marker.
    fn is_marked(&self, provider: &schema::Provider, model_name: &str) -> bool {
        match provider.marker {
            schema::Marker::Always => true,
            schema::Marker::Never => false,
            schema::Marker::Auto => {
                // Direct models are asked by name at the plain door alone, which speaks one scheme.
                let scheme = if self.file.http.tls.is_some() { "https://" } else { "http://" };
                let may_be_the_door = self.file.listen.http.is_some()
                    && provider.base_url.to_ascii_lowercase().starts_with(scheme);
                let is_served = |model: &&schema::Model| model.ensemble.is_some() || may_be_the_door;
                let served = self.file.models.iter().filter(is_served);
                let ad_hoc = self.file.overrides.ad_hoc.iter().map(|ad_hoc| &*ad_hoc.alias);
                let mut names = served.map(|model| &*model.display_name).chain(ad_hoc);
                provider.adapter == schema::Adapter::OpenAi && names.any(|name| name == model_name)
            }
        }
    }

    /// The direct model called `name`, as `path` asks for it.
    pub(super) fn direct(&mut self, name: &str, path: Path) -> Option<Arc<DirectModel>> {
        match self.models.get(name) {
            Some(Named::Direct(model)) => model.clone(),
            Some(Named::Ensemble) => {
                let shown = self.written.show(&path, name);
                let what = format!("\"{shown}\" is an ensemble; only a direct model can stand here");
                self.report.add(path, what);
                None
            }
            None => {
                let list = Path::root().key("models");
                let models = self.file.models.iter().enumerate();
                let names = models
                    .filter(|(_, model)| model.ensemble.is_none())
                    .map(|(i, model)| (i, model.display_name.as_str()));
                let known = literal(names, &list, "display_name", self.written);
                self.unknown(path, "model", name, &known);
                None
            }
        }
    }

    /// The direct models of a list; nothing when one is not known, or there twice.
    pub(super) fn listed(&mut self, names: &[String], list: &Path) -> Option<Vec<Arc<DirectModel>>> {
        let mut seen = HashSet::new();
        let mut resolved = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let path = list.index(i);
            if !seen.insert(name) {
                let what = format!("\"{}\" stands here twice", self.written.show(&path, name));
                self.report.add(path.clone(), what);
            }
            resolved.push(self.direct(name, path));
        }
        resolved.into_iter().collect()
    }

    fn unknown(&mut self, path: Path, kind: &str, name: &str, known: &[&str]) {
        let shown = self.written.show(&path, name);
        let hint = did_you_mean(name, known.iter().copied()).unwrap_or_default();
        let what = format!("unknown {kind} \"{shown}\"{hint}");
        self.report.add(path, what);
    }
}

fn cost(written: schema::Cost) -> Cost {
    let schema::Cost { input_per_1k: input, cached_input_per_1k, output_per_1k: output } = written;
    Cost { input, cached_input: cached_input_per_1k.unwrap_or(input), output }
}

/// The names that the file itself spells out, which may be suggested; others come from the
/// environment.
fn literal<'n>(
    names: impl Iterator<Item = (usize, &'n str)>,
    list: &Path,
    key: &str,
    written: &Written,
) -> Vec<&'n str> {
    names.filter(|(i, _)| !written.interpolated(&list.index(*i).key(key))).map(|(_, name)| name).collect()
}
