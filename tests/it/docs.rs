//! The documentation: its links lead somewhere, its configurations load, its commands are ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use clap::error::ErrorKind;
use consort::cli::Cli;
use consort_testkit::{fetch, workspace};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::house::{assert_consort_loads, is_of_consort};

/// What documents link that is not there yet.
const AWAITED: [&str; 1] = ["docs/performance.md"];

/// A document, as far as it can be wrong.
#[derive(Default)]
struct Document {
    /// Its path in the checkout.
    name: String,
    /// What its headings are linked by.
    anchors: Vec<String>,
    links: Vec<String>,
    /// The words behind the fence, and the text between.
    blocks: Vec<(String, String)>,
    /// Code within sentences.
    code: Vec<String>,
}

impl Document {
    fn read(path: &Path) -> Self {
        let name = path.strip_prefix(workspace()).expect("in the checkout").display().to_string();
        Self { name, ..Self::parse(&fs::read_to_string(path).expect("a readable document")) }
    }

    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let (mut heading, mut block) = (None::<String>, None::<(String, String)>);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let alike = document.anchors.iter().filter(|other| **other == anchor).count();
                    document.anchors.push(if alike == 0 { anchor } else { format!("{anchor}-{alike}") });
                }
                Event::Start(Tag::Link { dest_url, .. }) => document.links.push(dest_url.to_string()),
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    block = Some((info.to_string(), String::new()));
                }
                Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
                Event::Text(text) => match (&mut heading, &mut block) {
                    (Some(heading), _) => heading.push_str(&text),
                    (None, Some((_, block))) => block.push_str(&text),
                    (None, None) => {}
                },
                Event::Code(code) => match &mut heading {
                    Some(heading) => heading.push_str(&code),
                    None => document.code.push(code.to_string()),
                },
                _ => {}
            }
        }
        document
    }
}

/// What a heading is linked by where Markdown is shown.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Every document of the checkout, apart from what others have written.
fn documents() -> Vec<Document> {
    let mut directories = vec![workspace().join("docs"), workspace().join("deploy")];
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| workspace().join(name)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.iter().map(|path| Document::read(path)).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let (mut broken, mut awaited) = (Vec::new(), Vec::new());
    for document in &documents {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((&**link, None), |(path, at)| (path, Some(at)));
            let here = Path::new(&document.name);
            let target = match path {
                "" => here.to_owned(),
                path => plain(&here.parent().unwrap().join(path)),
            };
            let whole =
                anchor.map_or(target.display().to_string(), |at| format!("{}#{at}", target.display()));
            let there = documents.iter().find(|document| Path::new(&document.name) == target);
            let leads = match anchor {
                None => workspace().join(&target).exists(),
                Some(at) => there.is_some_and(|there| there.anchors.iter().any(|anchor| anchor == at)),
            };
            if leads {
                awaited.push(whole);
            } else if !AWAITED.contains(&&*whole) {
                broken.push(format!("{}: {link}", document.name));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
    let come: Vec<&&str> = AWAITED.iter().filter(|link| awaited.iter().any(|come| come == *link)).collect();
    assert!(come.is_empty(), "no longer to be awaited: {come:?}");
}

#[test]
fn the_index_has_every_document() {
    let documents = documents();
    let index = documents.iter().find(|document| document.name == "docs/README.md").expect("an index");
    let missing: Vec<&str> = documents
        .iter()
        .filter_map(|document| document.name.strip_prefix("docs/"))
        .filter(|name| {
            !name.contains('/') && *name != "README.md" && !index.links.iter().any(|link| link == name)
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let written = fs::read_to_string(workspace().join("docs/configuration.md")).expect("the reference");
    assert!(
        written == consort::config::reference(),
        "docs/configuration.md is of another schema; \
         cargo run -q --bin consort -- schema --markdown > docs/configuration.md"
    );
}

/// A block of YAML is a configuration of Consort's, unless a word behind `yaml` says what else it is: `envoy=…` is a
/// [`Place`], and what Kubernetes and Docker take is held to their own schemas where it is shipped.
#[test]
fn every_configuration_in_the_documentation_loads() {
    let mut loaded = 0;
    for document in documents() {
        for (info, block) in &document.blocks {
            match info.split_once(' ').map_or((&**info, ""), |(language, rest)| (language, rest)) {
                ("yaml", "") => {
                    assert!(is_of_consort(block), "{}: whose YAML is this?\n{block}", document.name);
                    assert_consort_loads(&document.name, block);
                    loaded += 1;
                }
                ("yaml", "kubernetes" | "compose") => {}
                ("yaml", of) => assert!(Place::of(of).is_some(), "{}: what is `yaml {of}`?", document.name),
                _ => {}
            }
        }
    }
    assert!(loaded > 5, "{loaded} configurations");
}

/// Where a fragment of Envoy's configuration belongs.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Elements of `http_filters`, before the router.
    HttpFilters,
    /// Elements of a virtual host's `routes`.
    Routes,
    /// Elements of `clusters`.
    Clusters,
    /// Fields of the HTTP connection manager.
    Manager,
    /// A whole bootstrap.
    Bootstrap,
}

impl Place {
    fn of(word: &str) -> Option<Self> {
        Some(match word.strip_prefix("envoy=")? {
            "http_filters" => Self::HttpFilters,
            "routes" => Self::Routes,
            "clusters" => Self::Clusters,
            "http_connection_manager" => Self::Manager,
            "bootstrap" => Self::Bootstrap,
            _ => return None,
        })
    }

    /// A bootstrap with this fragment, and nothing else that could be wrong.
    fn bootstrap(self, fragment: &str) -> String {
        let at = |place: Self, indent: usize| match place == self {
            true => fragment.lines().map(|line| format!("{:indent$}{line}\n", "")).collect(),
            false => String::new(),
        };
        if self == Self::Bootstrap {
            return fragment.to_owned();
        }
        let clusters: String = ["consort", "consort_http", "upstream"]
            .iter()
            .filter(|name| self != Self::Clusters || !fragment.contains(&format!("- name: {name}\n")))
            .map(|name| format!("  - {{name: {name}, type: STATIC, connect_timeout: 1s}}\n"))
            .collect();
        let type_url = "type.googleapis.com/envoy.extensions.filters";
        format!(
            "static_resources:
  listeners:
  - name: documented
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": {type_url}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: documented
{manager}          http_filters:
{filters}          - name: envoy.filters.http.router
            typed_config: {{\"@type\": {type_url}.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: documented
              domains: [\"*\"]
              routes:
{routes}              - {{match: {{prefix: /}}, route: {{cluster: upstream}}}}
  clusters:
{clusters}{own}",
            manager = at(Self::Manager, 10),
            filters = at(Self::HttpFilters, 10),
            routes = at(Self::Routes, 14),
            own = at(Self::Clusters, 2),
        )
    }
}

/// Envoy's complaint about a bootstrap.
fn complaint(bootstrap: &str) -> Option<String> {
    let envoy = fetch::envoy().expect("Envoy is found or fetched");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("envoy.yaml");
    fs::write(&file, bootstrap).expect("a file");
    let mut validate = Command::new(envoy);
    validate.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&file);
    let checked = validate.output().expect("Envoy runs");
    (!checked.status.success()).then(|| String::from_utf8_lossy(&checked.stderr).into_owned())
}

#[test]
fn every_fragment_for_envoy_is_taken_by_it() {
    let mut taken = 0;
    for document in documents() {
        for (info, block) in &document.blocks {
            let Some(place) = info.strip_prefix("yaml ").and_then(Place::of) else { continue };
            let bootstrap = place.bootstrap(block);
            if let Some(complaint) = complaint(&bootstrap) {
                panic!("{}: {complaint}\n{bootstrap}", document.name);
            }
            taken += 1;
        }
    }
    assert!(taken > 2, "{taken} fragments");
    for place in [Place::HttpFilters, Place::Routes, Place::Clusters, Place::Manager] {
        assert!(complaint(&place.bootstrap("nonsense: 1\n")).is_some(), "nonsense is not taken");
    }
}

/// What is typed in a line of a shell: its words, up to what the shell takes for itself.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '|' | '>' | '&' | ';') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The command that a line runs, if it is ours.
fn our_command(line: &str) -> Option<Vec<String>> {
    let mut words = words(line);
    let variables = words.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
    words.drain(..variables);
    if words.starts_with(&["cargo", "run"].map(str::to_owned)) && words.iter().any(|word| word == "consort") {
        let ours = words.iter().position(|word| word == "--").map_or(words.len(), |at| at + 1);
        words.drain(..ours);
        words.insert(0, "consort".to_owned());
    }
    (words.len() > 1 && words.first().is_some_and(|word| word == "consort")).then_some(words)
}

/// What is wrong with a command; that an example leaves something out is nothing.
fn misuse(command: &[String]) -> Option<String> {
    match Cli::try_parse_from(command).map_err(|error| (error.kind(), error.to_string())) {
        Ok(_) => None,
        Err((ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _)) => {
            None
        }
        Err((_, told)) => Some(told),
    }
}

#[test]
fn every_command_in_the_documentation_is_ours() {
    let mut ours = 0;
    for document in documents() {
        let shell = |info: &str| matches!(info, "sh" | "bash" | "console");
        let blocks = document.blocks.iter().filter(|(info, _)| shell(info));
        let joined: Vec<String> = blocks.map(|(_, text)| text.replace("\\\n", " ")).collect();
        let lines = joined.iter().flat_map(|text| text.lines());
        for command in lines.chain(document.code.iter().map(|code| &**code)).filter_map(our_command) {
            if let Some(wrong) = misuse(&command) {
                panic!("{}: {command:?}: {wrong}", document.name);
            }
            ours += 1;
        }
    }
    assert!(ours > 10, "{ours} commands");
}

#[test]
fn documents_are_read_as_they_are_shown() {
    let text =
        "# A `b.c[]` d\n\n## A\n\n## A\n\n[x](y.md#z) `consort check`\n\n```yaml envoy=routes\n- a\n```\n";
    let document = Document::parse(text);
    assert_eq!(document.anchors, ["a-bc-d", "a", "a-1"]);
    assert_eq!(
        (&*document.links, &*document.code),
        (&["y.md#z".to_owned()][..], &["consort check".to_owned()][..])
    );
    assert_eq!(document.blocks, [("yaml envoy=routes".to_owned(), "- a\n".to_owned())]);
    assert_eq!(plain(Path::new("docs/adr/../../src/./lib.rs")), Path::new("src/lib.rs"));

    let command = |line| our_command(line).map(|words| words.join(" "));
    assert_eq!(command("A=b consort ask -c f \"why is\" # x").as_deref(), Some("consort ask -c f why is"));
    assert_eq!(command("cargo run -q --bin consort -- schema > f").as_deref(), Some("consort schema"));
    assert_eq!((command("consort"), command("curl consort")), (None, None));
    let wrong = |line| misuse(&our_command(line).expect("ours")).is_some();
    assert!(!wrong("consort serve") && wrong("consort serv") && wrong("consort check --file x"));
}
