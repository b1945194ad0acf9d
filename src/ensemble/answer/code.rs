//! Code: the same whatever is said about it, and however its lines end.

use super::fence;

/// The code in the fences of `text`, without blanks at the ends of lines and without blank lines; none where
/// there is none.
pub fn canonical(text: &str) -> Option<String> {
    let lines = fence::blocks(text).into_iter().flat_map(str::lines).map(str::trim_end);
    let code: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    (!code.is_empty()).then(|| code.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_stands_in_fences_but_for_what_no_reader_sees() {
        for (text, code) in [
            ("Here:\n```rust\nfn a() {}\n\n  b \n```\nDone.", Some("fn a() {}\n  b")),
            ("~~~\r\nfn a() {}\r\n\t\r\n  b\t\r\n~~~", Some("fn a() {}\n  b")),
            ("```\na\n```\nand\n```py\nb\n```", Some("a\nb")),
            ("```\n a\n```", Some(" a")),
            ("fn a() {}", None),
            ("```\n\n```", None),
        ] {
            assert_eq!(canonical(text).as_deref(), code, "{text:?}");
        }
    }
}
