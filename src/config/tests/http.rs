//! The plain HTTP door.

use std::path::Path;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn the_door_is_shut_unless_it_is_asked_for() {
    assert_eq!(yaml("{}").unwrap().listen.http, None);
    let open = yaml("{listen: {http: '0.0.0.0:8080'}, http: {body_timeout_ms: 5}}").unwrap();
    assert_eq!(open.listen.http, Some(Address::Tcp("0.0.0.0:8080".to_owned())));
    assert!(open.door.keys.is_empty());
    assert_eq!(open.door.body_timeout, Duration::from_millis(5));
}

#[test]
fn keys_are_known_by_their_digests_and_names() {
    let text =
        format!("{{http: {{api_keys: ['sha256:{DIGEST}', {{name: ours, sha256: {}}}]}}}}", "AB".repeat(32));
    let keys = yaml(&text).unwrap().door.keys;
    let keys: Vec<_> = keys.iter().map(|key| (&*key.name, key.digest[0], key.digest[31])).collect();
    assert_eq!(keys, [("#0", 0xe3, 0x55), ("ours", 0xab, 0xab)]);
}

#[test]
fn what_is_wrong_with_the_door_is_said_without_showing_a_key() {
    let keys = format!(
        "'sk-a-key-itself', 'sha256:{0}0', {{name: a, sha256: {0}}}, {{name: a, sha256: zz}}",
        DIGEST
    );
    let text = format!(
        "{{listen: {{http: nowhere}}, http: {{api_keys: [{keys}], tls: {{cert: /no/cert, key: /no/key}}}}}}"
    );
    insta::assert_snapshot!(problems(&text), @r#"
    http.api_keys[0]: expected `sha256:` and the key's digest in hexadecimal, as `printf %s "$KEY" | sha256sum` prints it
    http.api_keys[1]: expected the key's SHA-256 digest: 64 hexadecimal digits
    http.api_keys[3].name: is the name of another key too
    http.api_keys[3].sha256: expected the key's SHA-256 digest: 64 hexadecimal digits
    http.tls.cert: cannot read "/no/cert": I/O error: No such file or directory (os error 2)
    listen.http: expected `host:port` or `unix:/path`
    "#);
}

/// A certificate and its key, below `dir`.
fn pair(dir: &Path) -> [String; 2] {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [cert_file, key_file] = ["cert", "key"].map(|name| dir.join(name).display().to_string());
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    [cert_file, key_file]
}

#[test]
fn the_files_of_either_doors_tls_are_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = pair(dir.path());
    for door in ["http", "ext_proc"] {
        let tls = |fields: &str| yaml(&format!("{door}: {{tls: {{{fields}}}}}"));
        let of = |config: Config| if door == "http" { config.connections.tls } else { config.ext_proc_tls };
        let served = of(tls(&format!("cert: '{cert}', key: '{key}'")).unwrap()).unwrap();
        assert!(!served.knows_peers());
        let mutual = of(tls(&format!("cert: '{cert}', key: '{key}', client_ca: '{cert}'")).unwrap()).unwrap();
        assert!(mutual.knows_peers());
        for (fields, problem) in [
            (
                format!("cert: '{key}', key: '{cert}'"),
                "tls.cert: \"DIR/key\" holds no certificate (expected PEM)",
            ),
            (format!("cert: '{cert}', key: '{cert}'"), "tls.key: cannot read \"DIR/cert\": no items found"),
            (
                format!("cert: '{cert}', key: '{key}', client_ca: '{key}'"),
                "tls.client_ca: \"DIR/key\" holds no certificate (expected PEM)",
            ),
            (
                format!("cert: '{cert}', key: '{key}', client_ca: /no/ca"),
                "tls.client_ca: cannot read \"/no/ca\": I/O error: No such file or directory (os error 2)",
            ),
            (format!("cert: '{cert}'"), "tls.key: is required"),
        ] {
            let told = tls(&fields).unwrap_err().to_string();
            let told = told.replace(&dir.path().display().to_string(), "DIR");
            assert_eq!(told.trim_end(), format!("{door}.{problem}"), "{fields}");
        }
    }
}

#[test]
fn a_socket_is_for_its_group_unless_the_file_says_otherwise() {
    let mode = |listen: &str| yaml(&format!("listen: {{{listen}}}")).unwrap().listen.socket_mode;
    assert_eq!(mode(""), 0o660);
    for (access, wanted) in [("owner", 0o600), ("group", 0o660), ("everyone", 0o666)] {
        assert_eq!(mode(&format!("socket_access: {access}")), wanted);
    }
    insta::assert_snapshot!(problems("listen: {socket_access: nobody}"), @"listen.socket_access: expected `owner`, `group` or `everyone`");
}
