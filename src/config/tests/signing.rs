//! Secrets, and what is signed with them.

use std::fs;
use std::time::Duration;

use super::*;
use crate::signing::{Secrets, digest, marker};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Whether what is marked with `secret` is known by the secrets of this file.
fn knows(config: &Config, secret: &str) -> bool {
    let marked = marker::issue(digest([]), &Secrets::new([secret.as_bytes()]).unwrap(), 0).unwrap();
    marker::is_authentic(marked.as_bytes(), &config.ext_proc.secrets)
}

#[test]
fn secrets_are_of_at_least_32_bytes_and_both_doors_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, format!("{SECRET}-of-a-file\r\n")).unwrap();
    let text = format!("signing: {{secrets: ['${{NEW}}', {SECRET}], secret_files: ['{}']}}", file.display());
    let new = "the-newest-of-all-secrets-of-32-bytes";
    let config = read(&text, Format::Yaml, &environment([("NEW", new)])).unwrap();
    for secret in [new, SECRET, &format!("{SECRET}-of-a-file")] {
        assert!(knows(&config, secret), "{secret}");
        assert!(!config.shown.to_string().contains(secret) && !format!("{config:?}").contains(secret));
    }
    let signed = marker::issue(digest([]), &config.door.secrets, 0).unwrap();
    assert!(
        marker::is_authentic(signed.as_bytes(), &Secrets::new([new.as_bytes()]).unwrap()),
        "the first signs"
    );
    assert_eq!(config.watched, [file]);
    assert!(!knows(&yaml("{}").unwrap(), SECRET));
    let short = folder.path().join("short");
    fs::write(&short, format!("{}\n", &SECRET[1..])).unwrap();
    let text = format!(
        "signing: {{secrets: ['', {SECRET}, too-short], secret_files: ['{}', /nowhere]}}",
        short.display()
    );
    insta::assert_snapshot!(problems(&text), @r#"
    signing.secret_files[0]: a secret has at least 32 bytes, as `openssl rand -base64 32` prints it
    signing.secret_files[1]: cannot read "/nowhere": No such file or directory (os error 2)
    signing.secrets[0]: a secret has at least 32 bytes, as `openssl rand -base64 32` prints it
    signing.secrets[2]: a secret has at least 32 bytes, as `openssl rand -base64 32` prints it
    "#);
}

#[test]
fn what_the_documentation_has_shown_is_no_secret() {
    let text = format!("signing: {{secrets: [{SECRET}, only-an-example-of-at-least-32-bytes]}}");
    insta::assert_snapshot!(
        problems(&text),
        @"signing.secrets[1]: is an example that everybody knows; `openssl rand -base64 32` prints a secret"
    );
}

#[test]
fn who_signs_without_a_secret_signs_alone() {
    let alone = |text: &str| yaml(text).unwrap().signs_alone;
    let handed = "{listen: {http: '127.0.0.1:0'}, ext_proc: {handoff: {enabled: true}}";
    assert!(alone(&format!("{handed}}}")));
    assert!(!alone(&format!("{handed}, signing: {{secrets: [{SECRET}]}}}}")));
    assert!(!alone("{}"), "nothing is signed");
    let marked = "providers: [{name: p, base_url: 'http://h', marker: always}]
models: [{display_name: a, provider: p, model_name: a}]";
    assert!(alone(marked));
    assert!(!alone(&marked.replace("always", "never")));
}

#[test]
fn requests_are_handed_off_to_a_door_that_is_open() {
    let handed = |more: &str| yaml(&format!("ext_proc: {{handoff: {{enabled: true}}}}\n{more}"));
    let config = handed("listen: {http: '127.0.0.1:0'}").unwrap();
    assert_eq!(config.ext_proc.ticket_ttl, Some(Duration::from_secs(10)));
    assert_eq!(config.door.ticket_ttl, Duration::from_secs(10));
    assert_eq!(yaml("ext_proc: {handoff: {ticket_ttl_ms: 60000}}").unwrap().ext_proc.ticket_ttl, None);
    assert!(yaml("ext_proc: {handoff: {ticket_ttl_ms: 60001}}").is_err());
    insta::assert_snapshot!(handed("").unwrap_err(), @"ext_proc.handoff.enabled: needs `listen.http`: that door answers what this one hands off");
}

#[test]
fn calls_are_marked_that_could_be_taken_for_an_ensembles() {
    let marked = |fields: &str, rest: &str| -> Vec<bool> {
        let text = format!(
            "providers: [{{name: p, base_url: 'http://h'{fields}}}]
models:
- {{display_name: a, provider: p, model_name: e}}
- {{display_name: b, provider: p, model_name: b}}
- {{display_name: c, provider: p, model_name: ours}}
- {{display_name: e, ensemble: {{panel: [{{model: a}}], judge: {{model: b}}}}}}
{rest}"
        );
        let config = yaml(&text).unwrap_or_else(|problems| panic!("{problems}"));
        config.direct_models.iter().map(|model| model.marker.is_some()).collect()
    };
    let ad_hoc = "overrides: {ad_hoc: {alias: ours, models: [a, b], judge: [a]}}";
    assert_eq!(marked("", ""), [true, false, false]);
    assert_eq!(marked("", ad_hoc), [true, false, true]);
    assert_eq!(marked(", marker: always", ""), [true; 3]);
    assert_eq!(marked("", "listen: {http: '127.0.0.1:0'}"), [true, true, false], "b is asked by name there");
    assert_eq!(marked(", marker: never", ad_hoc), [false; 3]);
    assert_eq!(marked(", adapter: anthropic", ad_hoc), [false; 3]);
}
