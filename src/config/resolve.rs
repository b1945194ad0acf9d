//! From the configuration as written to the types of a run, which cannot hold a wrong one.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Number;
use tracing::level_filters::LevelFilter;

use super::interpolate::Written;
use super::problem::{Path, Report, did_you_mean};
use super::provider::{self, Providers};
use super::schema::{self, File};
use super::{Address, Config, Listen, Log, LogFormat};
use crate::ensemble::prompt::Template;
use crate::ensemble::{
    Ensemble, Judge, Member, OnJudgeFailure, OnQuorumFailure, Params, SingleCandidate, Snapshot, Strategy,
};
use crate::ext_proc::{ModeOverride, Settings};
use crate::upstream::DirectModel;

/// What the whole file means; nothing when that is not certain.
pub(super) fn resolve(file: &File, written: &Written, report: &mut Report) -> Option<Config> {
    let ext_proc = address(file, report);
    let providers = provider::resolve(file, written, report);
    let mut resolver = Resolver { file, written, models: HashMap::new(), report };
    let direct_models = resolver.models(&providers);
    let ensembles = resolver.ensembles();
    Some(Config {
        listen: Listen { ext_proc: ext_proc? },
        ext_proc: settings(file),
        snapshot: Arc::new(Snapshot::new(ensembles)),
        direct_models,
        max_inflight: file.limits.max_inflight,
        max_answer_bytes: file.limits.max_answer_bytes,
        log: log(&file.log),
    })
}

/// A bound in ms as written, where 0 means none.
pub(super) fn bound(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn address(file: &File, report: &mut Report) -> Option<Address> {
    let written = &file.listen.ext_proc;
    let address = match written.strip_prefix("unix:") {
        Some(socket) => socket.starts_with('/').then(|| Address::Unix(socket.into())),
        None => written
            .rsplit_once(':')
            .filter(|(host, port)| {
                let ipv6 = host.starts_with('[') && host.ends_with(']');
                !host.is_empty() && (ipv6 || !host.contains(':')) && port.parse::<u16>().is_ok()
            })
            .map(|_| Address::Tcp(written.clone())),
    };
    if address.is_none() {
        report.add(Path::root().key("listen").key("ext_proc"), "expected `host:port` or `unix:/path`");
    }
    address
}

fn settings(file: &File) -> Settings {
    Settings {
        mode_override: match file.ext_proc.mode_override {
            schema::ModeOverride::Standalone => ModeOverride::Standalone,
            schema::ModeOverride::Never => ModeOverride::Never,
        },
        max_request_bytes: file.limits.max_request_bytes,
        commit_after: Duration::from_millis(file.stream.commit_after_ms),
        heartbeat: bound(file.stream.heartbeat_ms),
        buffered_timeout: Duration::from_millis(file.ext_proc.buffered_timeout_ms),
    }
}

fn log(log: &schema::Log) -> Log {
    Log {
        format: match log.format {
            schema::LogFormat::Json => LogFormat::Json,
            schema::LogFormat::Pretty => LogFormat::Pretty,
        },
        level: match log.level {
            schema::LogLevel::Error => LevelFilter::ERROR,
            schema::LogLevel::Warn => LevelFilter::WARN,
            schema::LogLevel::Info => LevelFilter::INFO,
            schema::LogLevel::Debug => LevelFilter::DEBUG,
            schema::LogLevel::Trace => LevelFilter::TRACE,
        },
    }
}

/// What a name in `models` stands for.
enum Named {
    /// A direct model; without a value when it has a problem, which is reported where it is.
    Direct(Option<Arc<DirectModel>>),
    Ensemble,
}

/// How long a model's name may be, in bytes: it goes out in a header.
const MAX_NAME: usize = 256;

/// Resolves `models`: first the direct ones, then what ensembles make of them.
struct Resolver<'a> {
    file: &'a File,
    written: &'a Written,
    models: HashMap<&'a str, Named>,
    report: &'a mut Report,
}

impl<'a> Resolver<'a> {
    /// Learns every name; the direct models, in the file's order.
    fn models(&mut self, providers: &Providers<'_>) -> Vec<Arc<DirectModel>> {
        let list = Path::root().key("models");
        let mut direct = Vec::new();
        for (i, model) in self.file.models.iter().enumerate() {
            let path = list.index(i);
            let named = if model.ensemble.is_some() {
                Named::Ensemble
            } else {
                Named::Direct(self.direct_model(model, &path, providers))
            };
            if let Named::Direct(Some(model)) = &named {
                direct.push(Arc::clone(model));
            }
            let path = path.key("display_name");
            if model.display_name.len() > MAX_NAME || model.display_name.contains(char::is_control) {
                let what = format!("must be of at most {MAX_NAME} bytes, without control characters");
                self.report.add(path.clone(), what);
            }
            if self.models.insert(&model.display_name, named).is_some() {
                let shown = self.written.show(&path, &model.display_name);
                let what = format!("\"{shown}\" is the name of another model too");
                self.report.add(path, what);
            }
        }
        direct
    }

    fn direct_model(
        &mut self,
        model: &schema::Model,
        path: &Path,
        providers: &Providers<'_>,
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
        Some(Arc::new(DirectModel {
            name: model.display_name.as_str().into(),
            provider: found?.clone()?,
            model_name: model.model_name.clone()?,
            timeout: bound(model.timeout),
        }))
    }

    fn ensembles(&mut self) -> Vec<Ensemble> {
        let list = Path::root().key("models");
        let mut ensembles = Vec::new();
        for (i, model) in self.file.models.iter().enumerate() {
            if let Some(ensemble) = &model.ensemble {
                let path = list.index(i).key("ensemble");
                ensembles.extend(self.ensemble(&model.display_name, ensemble, &path));
            }
        }
        ensembles
    }

    fn ensemble(&mut self, name: &str, ensemble: &schema::Ensemble, path: &Path) -> Option<Ensemble> {
        let panel = self.panel(&ensemble.panel, &path.key("panel"));
        let judge = self.judge(&ensemble.judge, &path.key("judge"));
        let quorum = self.quorum(ensemble, path);
        let on_quorum_failure = match &ensemble.on_quorum_failure {
            schema::OnQuorumFailure::Fail => Some(OnQuorumFailure::Fail),
            schema::OnQuorumFailure::BestEffort => Some(OnQuorumFailure::BestEffort),
            schema::OnQuorumFailure::Fallback(model) => {
                let path = path.key("on_quorum_failure").key("fallback");
                self.direct(model, path).map(OnQuorumFailure::Fallback)
            }
        };
        Some(Ensemble {
            name: name.into(),
            panel: panel?,
            strategy: Strategy::Judge(judge?),
            quorum: quorum?,
            timeout: bound(ensemble.timeout_ms),
            deadline: bound(ensemble.deadline_ms),
            straggler_grace: ensemble.straggler_grace_ms.map(Duration::from_millis),
            on_quorum_failure: on_quorum_failure?,
            on_judge_failure: match ensemble.on_judge_failure {
                schema::OnJudgeFailure::Best => OnJudgeFailure::Best,
                schema::OnJudgeFailure::Fail => OnJudgeFailure::Fail,
            },
            single_candidate: match ensemble.single_candidate {
                schema::SingleCandidate::Return => SingleCandidate::Return,
                schema::SingleCandidate::Judge => SingleCandidate::Judge,
            },
        })
    }

    fn quorum(&mut self, ensemble: &schema::Ensemble, path: &Path) -> Option<NonZeroUsize> {
        let size = ensemble.panel.len();
        let quorum = ensemble.min_responses.unwrap_or(size.min(2));
        // Without a panel, that is what has been reported.
        if size > 0 && quorum > size {
            self.report.add(path.key("min_responses"), format!("{quorum} is more than the panel's {size}"));
            return None;
        }
        NonZeroUsize::new(quorum)
    }

    fn panel(&mut self, members: &[schema::Member], path: &Path) -> Option<Vec<Member>> {
        let most = self.file.limits.max_panel;
        // Each member is resolved even when one is not, to report them all.
        let resolved: Vec<Option<Member>> =
            members.iter().enumerate().map(|(i, member)| self.member(member, &path.index(i))).collect();
        if members.len() > most {
            self.report.add(
                path.clone(),
                format!("has {} members, `limits.max_panel` allows {most}", members.len()),
            );
        }
        resolved.into_iter().collect()
    }

    fn member(&mut self, member: &schema::Member, path: &Path) -> Option<Member> {
        let model = self.direct(&member.model, path.key("model"));
        let mut params = params(&member.params);
        for (name, value) in [("temperature", &member.temperature), ("seed", &member.seed)] {
            let Some(value) = value else { continue };
            if member.params.0.contains_key(name) {
                let what = format!("cannot stand beside `params.{name}`: choose one");
                self.report.add(path.key(name), what);
            }
            params.push((name.to_owned(), number(value)));
        }
        Some(Member {
            model: model?,
            weight: member.weight,
            params,
            system: member.system.clone(),
            required: member.required,
        })
    }

    fn judge(&mut self, judge: &schema::Judge, path: &Path) -> Option<Judge> {
        let model = self.direct(&judge.model, path.key("model"));
        let fallback = judge.fallback.as_ref().map(|name| {
            let path = path.key("fallback");
            if *name == judge.model {
                self.report.add(path.clone(), "must be another model than the judge's own");
            }
            self.direct(name, path)
        });
        let prompt = match judge.prompt.as_deref().map(Template::parse) {
            None => Some(Template::default()),
            Some(Ok(template)) => Some(template),
            Some(Err(error)) => {
                let path = path.key("prompt");
                // The error may cite the text.
                let what = if self.written.interpolated(&path) {
                    "is no prompt template as interpolated".to_owned()
                } else {
                    error.to_string()
                };
                self.report.add(path, what);
                None
            }
        };
        Some(Judge {
            model: model?,
            fallback: match fallback {
                Some(fallback) => Some(fallback?),
                None => None,
            },
            prompt: prompt?,
            params: params(&judge.params),
            max_candidate_bytes: judge.max_candidate_bytes,
        })
    }

    /// The direct model called `name`, as `path` asks for it.
    fn direct(&mut self, name: &str, path: Path) -> Option<Arc<DirectModel>> {
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

    fn unknown(&mut self, path: Path, kind: &str, name: &str, known: &[&str]) {
        let shown = self.written.show(&path, name);
        let hint = did_you_mean(name, known.iter().copied()).unwrap_or_default();
        let what = format!("unknown {kind} \"{shown}\"{hint}");
        self.report.add(path, what);
    }
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

fn params(params: &schema::Params) -> Params {
    params.0.iter().map(|(name, value)| (name.clone(), Bytes::from(value.to_string()))).collect()
}

fn number(number: &Number) -> Bytes {
    Bytes::from(number.to_string())
}
