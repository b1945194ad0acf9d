//! `consort envoy-config`: Envoy's side of the attachment.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::builder::{NonEmptyStringValueParser, PossibleValue};
use clap::{Args, ValueEnum};

use super::paint::{Screen, plain};
use super::{ConfigFile, Result, counted};
use crate::config::{self, Config};
use crate::envoy_config::doctor::{self, Expected, Transport};
use crate::envoy_config::{
    Address, Aliases, Attachment, ClientFiles, DnsLabel, Format, Mode, OnFailure, Place, Tls,
};
use crate::ext_proc::{ListModels, ModeOverride};
use crate::http::ServerTls;
use crate::telemetry::chain;

/// Print Envoy's configuration for this one of Consort's, or compare a running Envoy's with it.
///
/// Every setting has its reason beside it. What is printed holds no secret.
#[derive(Debug, Args)]
pub(super) struct EnvoyConfig {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// How bodies and answers travel.
    #[arg(long, value_enum, default_value = "standalone")]
    mode: Mode,
    /// Let Envoy read `model` itself, so that small requests for other models never reach Consort.
    #[arg(long)]
    gate: bool,
    /// Take every model whose name begins so for an ensemble's: aliases to come need no new configuration.
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    alias_prefix: Option<String>,
    /// What becomes of ensembles' requests while Consort cannot be asked: refuse them, or let them pass to the upstream.
    #[arg(long, value_enum, default_value = "closed")]
    on_failure: OnFailure,
    /// What the configuration is for.
    #[arg(long, value_enum, default_value = "bootstrap")]
    format: Format,
    /// Where Envoy listens: `host:port`, or `unix:/path`.
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: Address,
    /// Where Envoy finds Consort's `listen.ext_proc`; by default where the file says that it listens, and in Kubernetes
    /// the Service `consort` of the same namespace.
    #[arg(long, value_name = "ADDR")]
    consort: Option<Address>,
    /// Where Envoy finds Consort's `listen.http`, for `--mode handoff`; by default as for --consort.
    #[arg(long, value_name = "ADDR")]
    consort_http: Option<Address>,
    /// TLS: where Envoy finds the authorities of Consort's certificate.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new(), default_value = CONSORT_CA)]
    consort_ca: String,
    /// TLS: the name, or the IP address, in Consort's certificate; by default the host of its address, or `consort`.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    consort_name: Option<String>,
    /// TLS: where Envoy finds its own certificate, for a Consort whose file has `client_ca`.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new(), default_value = CLIENT_CERT)]
    client_cert: String,
    /// TLS: where Envoy finds the key of that certificate.
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new(), default_value = CLIENT_KEY)]
    client_key: String,
    /// Where requests for other models go: a gateway or a provider.
    #[arg(long, value_name = "ADDR", default_value = UPSTREAM)]
    upstream: Address,
    /// Kubernetes: the namespace of the gateway and its route.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: DnsLabel,
    /// Envoy Gateway: the Gateway. Istio: the value of the `istio` label on the gateway's pods.
    #[arg(long, value_name = "NAME", default_value = GATEWAY)]
    gateway: DnsLabel,
    /// Envoy Gateway: the listener of the Gateway.
    #[arg(long, value_name = "NAME", default_value = GATEWAY_LISTENER)]
    gateway_listener: DnsLabel,
    /// Envoy Gateway: the HTTPRoute for chat completions. Istio: that route's name in its VirtualService.
    #[arg(long, value_name = "NAME", default_value = ROUTE)]
    route: DnsLabel,
    /// Compare the Envoy whose admin interface is at this URL with what Consort needs: 0 when nothing differs, 1 when
    /// something does, 69 when it cannot be asked.
    #[arg(long, value_name = "URL", conflicts_with_all = ["mode", "gate", "on_failure", "format", "listen", "consort", "upstream"])]
    doctor: Option<String>,
    /// Print what was found as JSON.
    #[arg(long, requires = "doctor")]
    json: bool,
}

const LISTEN: &str = "127.0.0.1:10000";
const UPSTREAM: &str = "127.0.0.1:9000";
// As a Secret of cert-manager's has them, mounted there.
const CONSORT_CA: &str = "/etc/envoy/consort/ca.crt";
const CLIENT_CERT: &str = "/etc/envoy/consort/tls.crt";
const CLIENT_KEY: &str = "/etc/envoy/consort/tls.key";
const NAMESPACE: &str = "default";
const GATEWAY: &str = "gateway";
const GATEWAY_LISTENER: &str = "http";
const ROUTE: &str = "chat";

/// Envoy's admin interface does not answer (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNAVAILABLE: u8 = 69;

impl EnvoyConfig {
    /// Prints what was asked for.
    pub(super) async fn run(self, config: &Config) -> Result<ExitCode> {
        if let Some(url) = &self.doctor {
            return self.examine(url, config).await;
        }
        let attachment = self.attachment(config)?;
        if self.mode == Mode::Handoff && config.ext_proc.ticket_ttl.is_none() {
            let why = "without ext_proc.handoff.enabled in this file, Consort hands nothing over";
            writeln!(io::stderr(), "consort: {why}: streams come in one piece")?;
        }
        self.check_service(&attachment.consort)?;
        let text = attachment.render(self.format)?;
        io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }

    /// Says what a running Envoy lacks.
    async fn examine(&self, url: &str, config: &Config) -> Result<ExitCode> {
        let dump = match doctor::fetch(url).await {
            Ok(dump) => dump,
            Err(error) => {
                writeln!(io::stderr(), "consort: {}", Screen::on(&io::stderr()).fit(&chain(&error)))?;
                return Ok(ExitCode::from(EXIT_UNAVAILABLE));
            }
        };
        let findings = doctor::diagnose(&dump, &expected(config));
        let mut out = io::stdout();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
        } else {
            let screen = Screen::on(&out);
            for finding in &findings {
                writeln!(out, "{}\n", screen.fit(&finding.to_string()))?;
            }
            match findings.len() {
                0 => writeln!(out, "{}: this Envoy has what Consort needs", plain(url))?,
                count => writeln!(out, "{}: {}", plain(url), counted(count, "finding"))?,
            }
        }
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn attachment(&self, config: &Config) -> Result<Attachment> {
        let aliases = config.snapshot.ensembles().map(|ensemble| ensemble.name.to_string());
        let aliases = Aliases::new(aliases, self.alias_prefix.clone());
        let aliases = if self.gate { Some(aliases?) } else { aliases.ok() };
        let default = || config::Address::Tcp("127.0.0.1:8080".to_owned());
        let http = config.listen.http.clone().unwrap_or_else(default);
        let consort = self.consort.clone().map_or_else(|| self.found_at(&config.listen.ext_proc), Ok)?;
        let consort_http = self.consort_http.clone().map_or_else(|| self.found_at(&http), Ok)?;
        Ok(Attachment {
            mode: self.mode,
            aliases,
            gate: self.gate,
            on_failure: self.on_failure,
            listen: self.listen.clone(),
            consort_tls: config.ext_proc_tls.as_deref().map(|tls| self.tls(tls, &consort)),
            consort_http_tls: config.connections.tls.as_deref().map(|tls| self.tls(tls, &consort_http)),
            consort,
            consort_http,
            upstream: self.upstream.clone(),
            place: Place {
                namespace: self.namespace.clone(),
                gateway: self.gateway.clone(),
                listener: self.gateway_listener.clone(),
                route: self.route.clone(),
            },
            command: self.command(),
            lists_models: config.ext_proc.list_models != ListModels::Off,
        })
    }

    /// Envoy's part of what Consort speaks at `address`.
    fn tls(&self, spoken: &ServerTls, address: &Address) -> Tls {
        let certificate = ClientFiles { cert: self.client_cert.clone(), key: self.client_key.clone() };
        let certificate = spoken.knows_peers().then_some(certificate);
        Tls::with(address, self.consort_name.clone(), self.consort_ca.clone(), certificate)
    }

    /// How to get the same again: the mode, and every option that is not what it would be without being named.
    fn command(&self) -> String {
        let name = |value: Option<PossibleValue>| value.map_or(String::new(), |v| v.get_name().to_owned());
        let shown = |address: &Option<Address>| address.as_ref().map(Address::argument);
        let other = |value: String, default: &str| (value != default).then_some(value);
        let options = [
            ("--mode", Some(name(self.mode.to_possible_value()))),
            ("--format", other(name(self.format.to_possible_value()), "bootstrap")),
            ("--alias-prefix", self.alias_prefix.clone()),
            ("--on-failure", other(name(self.on_failure.to_possible_value()), "closed")),
            ("--listen", other(self.listen.argument(), LISTEN)),
            ("--consort", shown(&self.consort)),
            ("--consort-http", shown(&self.consort_http)),
            ("--consort-ca", other(self.consort_ca.clone(), CONSORT_CA)),
            ("--consort-name", self.consort_name.clone()),
            ("--client-cert", other(self.client_cert.clone(), CLIENT_CERT)),
            ("--client-key", other(self.client_key.clone(), CLIENT_KEY)),
            ("--upstream", other(self.upstream.argument(), UPSTREAM)),
            ("--namespace", other(self.namespace.to_string(), NAMESPACE)),
            ("--gateway", other(self.gateway.to_string(), GATEWAY)),
            ("--gateway-listener", other(self.gateway_listener.to_string(), GATEWAY_LISTENER)),
            ("--route", other(self.route.to_string(), ROUTE)),
        ];
        let file = shell_quoted(&self.file.config.display().to_string());
        let mut command = format!("consort envoy-config -c {file}");
        if self.gate {
            command.push_str(" --gate");
        }
        for (option, value) in options {
            if let Some(value) = value {
                command.push_str(&format!(" {option} {}", shell_quoted(&value)));
            }
        }
        command
    }

    /// Where Envoy finds what Consort binds, as far as that can be known.
    fn found_at(&self, bound: &config::Address) -> Result<Address> {
        let bound = bound.to_string().parse::<Address>()?;
        match (self.format, bound) {
            (Format::EnvoyGateway | Format::Istio, Address::Socket { port, .. }) => {
                let host = format!("consort.{}.svc.cluster.local", self.namespace);
                Ok(Address::Socket { host, port })
            }
            (_, bound) => Ok(bound.as_seen_locally()),
        }
    }

    /// The Service that Envoy Gateway is to name.
    fn check_service(&self, consort: &Address) -> Result<()> {
        let is_service = matches!(consort, Address::Socket { host, .. }
            if host.parse::<IpAddr>().is_err() && host.split('.').nth(1).is_some_and(|name| !name.is_empty()));
        if self.format == Format::EnvoyGateway && !is_service {
            return Err("--consort: Envoy Gateway wants a Service, as `name.namespace:port`".into());
        }
        Ok(())
    }
}

/// What the file asks of Envoy.
fn expected(config: &Config) -> Expected {
    let ensembles = || config.snapshot.ensembles();
    let mut aliases: Vec<_> = ensembles().map(|ensemble| ensemble.name.to_string()).collect();
    aliases.sort_unstable();
    Expected {
        aliases,
        max_inflight: config.max_inflight,
        longest_run: ensembles().filter_map(|ensemble| ensemble.longest_run()).max(),
        max_request_bytes: config.ext_proc.max_request_bytes,
        buffered_timeout: config.ext_proc.buffered_timeout,
        handoff: config.ext_proc.ticket_ttl.is_some(),
        transport: transport(config.ext_proc_tls.as_deref()),
        door_transport: transport(config.connections.tls.as_deref()),
        lists_models: config.ext_proc.list_models != ListModels::Off,
        overrides_mode: config.ext_proc.mode_override == ModeOverride::Standalone,
        clears_route_cache: config.ext_proc.clear_route_cache,
    }
}

fn transport(tls: Option<&ServerTls>) -> Transport {
    match tls {
        None => Transport::Plain,
        Some(tls) if tls.knows_peers() => Transport::MutualTls,
        Some(_) => Transport::Tls,
    }
}

/// One word of a shell's, on one line.
fn shell_quoted(text: &str) -> String {
    let text = plain(text);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
