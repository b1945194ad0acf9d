//! The console in a real browser, at two widths, light and dark: on Consort's own admin listener, beside a real Envoy.
//!
//! What is looked at is written down in `console/walk.mjs`; screenshots are left in `target/console`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use consort_testkit::provider::Reply;
use consort_testkit::{fetch, workspace};
use tokio::process::Command;

use crate::stack::{Options, Stack, ms};

const PLAYWRIGHT: &str = "playwright-core@1.65.1";

/// What a walk through the console needs.
struct Browser {
    packages: PathBuf,
    program: PathBuf,
}

impl Browser {
    /// Chromium and what drives it. A machine without them is no reason to fail, other than CI's, which has to have them.
    async fn find() -> Option<Self> {
        let fetched = tokio::task::spawn_blocking(|| fetch::npm_dir("playwright", &[PLAYWRIGHT])).await;
        let packages = fetched.unwrap().unwrap_or_else(|error| panic!("{error}"));
        let (Some(packages), Some(program)) = (packages, chromium()) else {
            let why = "there is no npm, or no chromium on the path, to open the console with";
            consort_testkit::lacking(why);
            return None;
        };
        Some(Self { packages, program })
    }

    /// Walks one way through the console, at every width and in every light.
    async fn walk(&self, way: &str, stack: &Stack) {
        let pictures = workspace().join("target/console");
        std::fs::create_dir_all(&pictures).unwrap();
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/console/walk.mjs"));
        command.args([&self.packages, &self.program, &pictures]).arg(way);
        command.arg(format!("http://{}/", stack.service.admin()));
        command.arg(format!("http://{}", stack.envoy.addr()));
        // A proxy of the machine is not on the way to loopback.
        let kept = |name: &std::ffi::OsStr| name == "PATH" || name == "HOME" || name == "TMPDIR";
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| kept(name)));
        let walked = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8_lossy(&walked.stdout);
        let errors = String::from_utf8_lossy(&walked.stderr);
        assert!(walked.status.success(), "{way}: {}\n{said}\n{errors}", walked.status);
    }
}

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| ["chromium", "chromium-browser", "google-chrome"].map(|name| dir.join(name)))
        .find(|program| program.is_file())
}

const BLUE: &str = "The sky is blue because air scatters short waves of sunlight more than long ones. So: 42";
const ALSO: &str = "The sky looks blue because air scatters short waves of light more than long ones. So: 42";
const HOSTILE: &str =
    "<img src=x onerror=alert(1)><script>alert(2)</script> It is the sea that is mirrored. So: 17";
const SPOKEN: [&str; 8] =
    ["Air ", "scatters ", "**short** ", "waves ", "<b>more</b> ", "than ", "long ", "ones."];

/// Members that take their time, so that a run can be seen while it happens, and of which the slowest decides the vote;
/// one model that is down.
async fn slow() -> Stack {
    let more = "- display_name: vote
  ensemble: {panel: [{model: a}, {model: b}, {model: c}], strategy: vote, answer: number, min_responses: 2}
- {display_name: down, provider: scripted, model_name: model-down, retries: 0, cooldown: {default_seconds: 300}, rate_limit: {rpm: 600}}
- {display_name: broken, ensemble: {panel: [{model: down}], strategy: first}}";
    let stack = Options::new().models(more).config("decisions: {include_content: true}").start().await;
    stack.provider.model("model-a").reply(Reply::text(BLUE).delay(ms(600)));
    stack.provider.model("model-b").reply(Reply::text(ALSO).delay(ms(2500)));
    stack.provider.model("model-c").reply(Reply::text(HOSTILE).delay(ms(900)));
    stack.provider.model("model-judge").reply(Reply::stream(&SPOKEN, ms(250)));
    stack.provider.model("model-down").reply(Reply::error(503, "down", "server_error", None));
    stack
}

#[tokio::test]
async fn a_run_is_seen_while_it_happens_and_opened_with_its_candidates() {
    let Some(browser) = Browser::find().await else { return };
    browser.walk("decisions", &slow().await).await;
}

#[tokio::test]
async fn an_alias_is_asked_in_the_playground_and_its_run_shown_beside_the_answer() {
    let Some(browser) = Browser::find().await else { return };
    browser.walk("playground", &slow().await).await;
}

#[tokio::test]
async fn a_model_that_cools_down_is_shown_with_the_time_left() {
    let Some(browser) = Browser::find().await else { return };
    browser.walk("models", &slow().await).await;
}
