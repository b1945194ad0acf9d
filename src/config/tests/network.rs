//! The way to a provider: certificates, proxies, and the files that hold what is secret.

use std::fs;
use std::path::Path as File;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate and its key, below `folder`.
fn pair(folder: &File, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let [pem, secret] = ["pem", "key"].map(|extension| folder.join(format!("{name}.{extension}")));
    fs::write(&pem, certificate.pem()).unwrap();
    fs::write(&secret, key.serialize_pem()).unwrap();
    [pem, secret].map(|file| file.display().to_string())
}

/// The problems of a provider with this `tls`; paths below `folder` are shown from there.
fn tls_problems(folder: &File, tls: &str) -> String {
    provider_problems(&format!("base_url: 'https://h', tls: {{{tls}}}"))
        .replace(&folder.display().to_string(), "DIR")
}

#[test]
fn certificates_and_keys_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let [certificate, key] = pair(dir, "ours.test");
    let [_, other] = pair(dir, "other.test");
    let whole = format!(
        "providers: [{{name: p, base_url: 'https://h', tls: {{ca_file: '{certificate}', server_name: models.test,
          certificate_file: '{certificate}', key_file: '{key}'}}}}]"
    );
    yaml(&whole).unwrap();
    let none = dir.join("none").display().to_string();
    let broken = dir.join("broken").display().to_string();
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let problems = |tls: &str| tls_problems(dir, tls);
    insta::assert_snapshot!(problems(&format!("ca_file: '{none}', certificate_file: '{none}', key_file: '{none}'")), @r#"
    providers[0].tls.ca_file: cannot read "DIR/none": No such file or directory (os error 2)
    providers[0].tls.certificate_file: cannot read "DIR/none": No such file or directory (os error 2)
    providers[0].tls.key_file: cannot read "DIR/none": No such file or directory (os error 2)
    "#);
    insta::assert_snapshot!(problems(&format!("ca_file: '{key}', certificate_file: '{key}', key_file: '{certificate}'")), @r#"
    providers[0].tls.ca_file: holds no certificate (expected PEM)
    providers[0].tls.certificate_file: holds no certificate (expected PEM)
    providers[0].tls.key_file: holds no private key (expected PEM, not encrypted)
    "#);
    insta::assert_snapshot!(problems(&format!("ca_file: '{broken}', key_file: '{broken}'")), @r#"
    providers[0].tls.ca_file: is no valid PEM
    providers[0].tls.certificate_file: is required beside `key_file`
    "#);
    insta::assert_snapshot!(problems(&format!("certificate_file: '{certificate}', server_name: 'a b'")), @r#"
    providers[0].tls.key_file: is required beside `certificate_file`
    providers[0].tls.server_name: is no name of a host
    "#);
    insta::assert_snapshot!(problems(&format!("certificate_file: '{certificate}', key_file: '{other}'")), @"providers[0].tls.certificate_file: TLS refuses it: keys may not be consistent: KeyMismatch");
}

#[test]
fn what_is_for_tls_is_for_https() {
    insta::assert_snapshot!(provider_problems("base_url: 'http://h', tls: {server_name: x}"), @"providers[0].tls: is for a `base_url` that begins with https://");
    insta::assert_snapshot!(provider_problems("base_url: 'https://h', tls: {sni: x}, http2: h2c, max_connections: -1"), @r#"
    providers[0].http2: expected `auto` or `prior_knowledge`
    providers[0].max_connections: must be from 0 to 65535
    providers[0].tls.sni: unknown key (known: ca_file, server_name, certificate_file, key_file)
    "#);
}

#[test]
fn a_proxy_that_is_none_is_a_problem_and_nothing_of_it_is_shown() {
    for proxy in ["socks5://user:hunter2@h:1", "http://user:hunter2@", "user:hunter2@ h"] {
        let found = provider_problems(&format!("base_url: 'http://h', proxy: '{proxy}'"));
        assert_eq!(
            found,
            "providers[0].proxy: expected a URL like http://user:password@proxy.internal:3128, or `none`"
        );
    }
    let text = "providers: [{name: p, base_url: 'https://h'}, {name: q, base_url: 'https://h', proxy: none},
        {name: r, base_url: 'http://h'}]";
    let environment = environment([("HTTPS_PROXY", "socks5://user:hunter2@h:1")]);
    let found = read(text, Format::Yaml, &environment).unwrap_err().to_string();
    insta::assert_snapshot!(found, @"providers[0].proxy: the environment variable HTTPS_PROXY is no URL like http://user:password@proxy.internal:3128 (`none` would go without a proxy)");
}

#[test]
fn what_was_read_is_known_and_is_read_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = pair(folder.path(), "ours.test");
    let secret = folder.path().join("secret").display().to_string();
    let file = folder.path().join("consort.yaml");
    let text = format!(
        "providers:
- {{name: p, base_url: 'https://h', api_key_file: '{secret}',
   tls: {{ca_file: '{certificate}', certificate_file: '{certificate}', key_file: '{key}'}}}}
models: [{{display_name: a, provider: p, model_name: m}}]"
    );
    fs::write(&file, text).unwrap();
    let paths = [&certificate, &key, &secret].map(PathBuf::from);
    let keys = ["one", "two"].map(|key| {
        fs::write(&secret, format!("{key}\n")).unwrap();
        let config = load(&file).unwrap();
        assert_eq!(config.watched, paths);
        config.direct_models[0].provider.credential.key().unwrap().to_owned()
    });
    assert_eq!(keys, ["one", "two"]);
    pair(folder.path(), "ours.test");
    load(&file).unwrap();
    let [_, other] = pair(folder.path(), "other.test");
    fs::copy(other, &key).unwrap();
    let problems = load(&file).unwrap_err().to_string();
    assert!(problems.contains("providers[0].tls.certificate_file: TLS refuses it"), "{problems}");
}
