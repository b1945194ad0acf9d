//! The commands.

mod account;
mod ask;
mod dumps;
mod envoy_config;
mod health;
mod operators;
mod paint;
mod progress;
mod replay;
mod table;
mod watch;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::ask::Ask;
use self::envoy_config::EnvoyConfig;
use self::health::Health;
use self::paint::Screen;
use self::replay::Replay;
use self::watch::Watch;
use crate::app::{self, FromFile};
use crate::config::{self, Config, Problems};
use crate::telemetry::chain;

/// The configuration is wrong (`EX_USAGE` of sysexits.h).
const EXIT_CONFIG: u8 = 64;

/// One model alias that stands for several models, beside Envoy.
#[derive(Debug, Parser)]
#[command(name = "consort", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve Envoy's external processing.
    Serve(Serve),
    /// Report everything that is wrong with a configuration, and do nothing else.
    Check(ConfigFile),
    /// Print the JSON Schema of the configuration.
    Schema {
        /// Print the reference of all keys, for people.
        #[arg(long)]
        markdown: bool,
    },
    Ask(Ask),
    Watch(Watch),
    Health(Health),
    Replay(Replay),
    EnvoyConfig(Box<EnvoyConfig>),
    /// Print the completions for a shell.
    Completions {
        /// The shell that is to complete.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Let the system dump this process's memory, and debuggers look into it. It holds keys, prompts and answers.
    #[arg(long)]
    allow_core_dumps: bool,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration: YAML, TOML or JSON, by extension.
    #[arg(short, long = "config", value_name = "FILE")]
    config: PathBuf,
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        // Before anything is read that is a secret.
        if !matches!(self.command, Command::Serve(Serve { allow_core_dumps: true, .. }))
            && let Err(error) = dumps::forbid()
        {
            // It goes on as programs do. Whoever closed our output does not want to hear of it.
            let _ = writeln!(io::stderr(), "consort: core dumps cannot be turned off: {error}");
        }
        let ran = match self.command {
            Command::Serve(Serve { file, .. }) => serve(file.config).await,
            Command::Check(ConfigFile { config }) => {
                let loaded = config::load(&config);
                check(&config, loaded, &mut io::stdout(), &mut io::stderr())
            }
            Command::Schema { markdown } => schema(markdown, &mut io::stdout()),
            Command::Ask(ask) => match config::load(&ask.file.config) {
                Ok(config) => told(Box::pin(ask.run(&config)).await),
                Err(problems) => report(&ask.file.config, &problems, &mut io::stderr()),
            },
            Command::Watch(watch) => told(Box::pin(watch.run()).await),
            Command::Health(health) => told(Box::pin(health.run()).await),
            Command::Replay(replay) => told(Box::pin(replay.run()).await),
            Command::EnvoyConfig(wanted) => match config::load(&wanted.file.config) {
                Ok(config) => told(Box::pin(wanted.run(&config)).await),
                Err(problems) => report(&wanted.file.config, &problems, &mut io::stderr()),
            },
            Command::Completions { shell } => completions(shell, &mut io::stdout()),
        };
        // Whoever closed our output does not want to hear of it.
        ran.unwrap_or(ExitCode::FAILURE)
    }
}

/// What a command could not do.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Says why a command has failed.
fn told(ran: Result<ExitCode>) -> io::Result<ExitCode> {
    let error = match ran {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    let is_unheard =
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if !is_unheard {
        writeln!(io::stderr(), "consort: {}", Screen::on(&io::stderr()).fit(&chain(&*error)))?;
    }
    Ok(ExitCode::FAILURE)
}

async fn serve(file: PathBuf) -> io::Result<ExitCode> {
    let from = match FromFile::load(file.clone()) {
        Ok(from) => from,
        Err(problems) => return report(&file, &problems, &mut io::stderr()),
    };
    let level = from.config.log.to_stdout();
    match Box::pin(app::serve(from, level)).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // The one error that no log could take: it is why there is no service.
            writeln!(io::stderr(), "consort: {}", chain(&error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn check(
    file: &Path,
    loaded: std::result::Result<Config, Problems>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => return report(file, &problems, err),
    };
    writeln!(
        out,
        "{}: ok, {}, {}",
        file.display(),
        counted(config.direct_models.len(), "direct model"),
        counted(config.snapshot.ensembles().count(), "ensemble"),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn report(file: &Path, problems: &Problems, err: &mut impl Write) -> io::Result<ExitCode> {
    let count = counted(problems.iter().len(), "problem");
    writeln!(err, "{}: {count}\n{problems}", file.display())?;
    Ok(ExitCode::from(EXIT_CONFIG))
}

fn schema(markdown: bool, out: &mut impl Write) -> io::Result<ExitCode> {
    if markdown {
        write!(out, "{}", config::reference())?;
    } else {
        writeln!(out, "{:#}", config::json_schema())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell, out: &mut impl Write) -> io::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "consort", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Format, Source};

    fn checked(text: &str) -> (ExitCode, String, String) {
        let loaded =
            Source { name: "f.yaml", text, format: Format::Yaml, environment: &Environment::new() }.load();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(Path::new("f.yaml"), loaded, &mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn check_counts_what_a_good_file_holds() {
        let (code, out, err) = checked(
            "providers: [{name: p, base_url: 'http://h'}]
models:
- {display_name: a, provider: p, model_name: m}
- {display_name: b, provider: p, model_name: m}
- {display_name: e, ensemble: {panel: [{model: a}], judge: {model: b}}}",
        );
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(out, "f.yaml: ok, 2 direct models, 1 ensemble\n");
        assert_eq!(err, "");
    }

    #[test]
    fn check_reports_every_problem_and_exits_with_64() {
        let (code, out, err) = checked("{limit: {}, listen: {ext_proc: x}}");
        assert_eq!(code, ExitCode::from(64));
        assert_eq!(out, "");
        insta::assert_snapshot!(err, @r#"
        f.yaml: 2 problems
        limit: unknown key (did you mean "limits"?)
        listen.ext_proc: expected `host:port` or `unix:/path`
        "#);
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
