//! What Consort signs with.

use zeroize::Zeroizing;

use super::files::Files;
use crate::config::problem::{Path, Report};
use crate::config::schema::File;
use crate::signing::{MIN_SECRET_BYTES, Secrets};

/// What documentation has shown as a secret: whoever has copied it signs with what everybody knows.
const EXAMPLE: &[u8] = b"only-an-example-of-at-least-32-bytes";

/// The secrets; nothing when one of them is none.
pub(super) fn secrets(file: &File, files: &mut Files<'_>, report: &mut Report) -> Option<Secrets> {
    let path = Path::root().key("signing");
    let written = file.signing.secrets.iter().enumerate();
    let mut secrets: Vec<_> = written
        .map(|(i, secret)| {
            (path.key("secrets").index(i), Some(Zeroizing::new(secret.expose().as_bytes().to_vec())))
        })
        .collect();
    for (i, name) in file.signing.secret_files.iter().enumerate() {
        let path = path.key("secret_files").index(i);
        let read = files.read(&path, name, report);
        secrets.push((path, read.map(without_newline)));
    }
    let mut sound = Vec::new();
    for (path, secret) in secrets {
        match secret {
            Some(secret) if secret.len() < MIN_SECRET_BYTES => {
                let what = format!(
                    "a secret has at least {MIN_SECRET_BYTES} bytes, as `openssl rand -base64 32` prints it"
                );
                report.add(path, what);
                sound.push(None);
            }
            Some(secret) if *secret == EXAMPLE => {
                let what = "is an example that everybody knows; `openssl rand -base64 32` prints a secret";
                report.add(path, what);
                sound.push(None);
            }
            read => sound.push(read),
        }
    }
    let sound: Vec<Zeroizing<Vec<u8>>> = sound.into_iter().collect::<Option<_>>()?;
    Some(Secrets::new(sound.iter().map(|secret| secret.as_slice())).unwrap_or_else(Secrets::of_process))
}

fn without_newline(mut text: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let newlines = text.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let length = text.len() - newlines;
    text.truncate(length);
    text
}
