//! An operator's file, in each format: it loads, or each of its problems has a place and gives no secret away.

#![no_main]

use std::sync::LazyLock;

use consort::config::{Environment, Format, Source};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "s3cr3t-0f-the-env1ronment";

static ENVIRONMENT: LazyLock<Environment> =
    LazyLock::new(|| Environment::from([("KEY".to_owned(), SECRET.to_owned())]));

fuzz_target!(|text: &str| {
    for format in [Format::Yaml, Format::Toml, Format::Json] {
        match (Source { name: "the.file", text, format, environment: &ENVIRONMENT }).load() {
            Ok(config) => {
                assert!(!config.shown.to_string().contains(SECRET), "a secret is shown");
                assert!(!format!("{config:?}").contains(SECRET), "a secret is printed");
            }
            Err(problems) => {
                assert!(problems.iter().len() > 0, "it does not load, and nothing is wrong");
                for problem in problems.iter() {
                    let is_placed =
                        !problem.path.segments().is_empty() || problem.what.starts_with("the.file:");
                    assert!(is_placed, "{format:?}: no place: {problem}");
                    assert!(!problem.what.is_empty() && !problem.to_string().contains(SECRET), "{problem}");
                }
            }
        }
    }
});
