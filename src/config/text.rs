//! Files and their texts, read within a bound and not left in memory.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use config::{ConfigError, FileFormat, Format as _, Map, Source, Value};
use zeroize::Zeroizing;

/// How large a configuration file may be, and each file that it names, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What stands in the file. It may be a secret: what is dropped is erased.
///
/// # Errors
/// When it cannot be read, or has more than 4 MiB: a path may lead to what has no end.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Zeroizing<Vec<u8>>> {
    // With room for all of it, so that it never moves and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    let mut file = File::open(path)?.take(MAX_FILE_BYTES + 1);
    let length = file.get_ref().metadata()?.len().min(MAX_FILE_BYTES);
    bytes.reserve(usize::try_from(length).unwrap_or_default() + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let what = format!("it has more than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// A text as a source of values. The crate's own makes two copies of it, and erases neither.
#[derive(Clone, Debug)]
pub(super) struct Text {
    text: Zeroizing<String>,
    format: FileFormat,
}

impl Text {
    pub(super) fn new(text: &str, format: FileFormat) -> Self {
        Self { text: Zeroizing::new(text.to_owned()), format }
    }
}

impl Source for Text {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let parsed = self.format.parse(None, &self.text);
        parsed.map_err(|cause| ConfigError::FileParse { uri: None, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_does_not_show_its_text() {
        let shown = format!("{:?}", Text::new("api_key: sk-secret", FileFormat::Yaml));
        assert!(!shown.contains("sk-secret"), "{shown}");
    }

    #[test]
    fn a_file_may_be_as_large_as_the_bound_and_not_a_byte_larger() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let bytes = usize::try_from(MAX_FILE_BYTES).unwrap();
        std::fs::write(&file, vec![b'x'; bytes]).unwrap();
        assert_eq!(read(&file).unwrap().len(), bytes);
        std::fs::write(&file, vec![b'x'; bytes + 1]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read("/dev/zero").unwrap_err().to_string(), "it has more than 4194304 bytes");
    }
}
