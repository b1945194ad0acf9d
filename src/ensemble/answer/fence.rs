//! Fenced blocks of Markdown.

/// The insides of the fenced blocks of `text`, in order. One that is never closed ends with the text.
pub fn blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let start = end;
        end += line.len();
        let bar = bar(line);
        match open {
            None => open = bar.map(|bar| (bar, end)),
            // A closing fence is as long as the opening one, and nothing else stands in its line.
            Some((opened, inside)) if bar.is_some_and(|b| b.starts_with(opened) && line.trim() == b) => {
                blocks.extend(text.get(inside..start));
                open = None;
            }
            Some(_) => {}
        }
    }
    if let Some((_, inside)) = open {
        blocks.extend(text.get(inside..));
    }
    blocks
}

/// The fence that a line begins with.
fn bar(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = line.len() - line.trim_start_matches(mark).len();
    let (bar, info) = line.split_at_checked(length)?;
    // ```x``` in one line is no block.
    (length >= 3 && !(mark == '`' && info.contains(mark))).then_some(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_stands_between_fences() {
        for (text, inside) in [
            ("a\n```rust\nx\ny\n```\nb\n~~~\nz\n~~~", vec!["x\ny\n", "z\n"]),
            ("```\nx\n", vec!["x\n"]),
            ("```\nx", vec!["x"]),
            ("````\n```\nx\n```\n````", vec!["```\nx\n```\n"]),
            ("```\n~~~\n```", vec!["~~~\n"]),
            ("1. a\n   ```sh\n   ls\n   ```", vec!["   ls\n"]),
            ("```a\n```b\n```", vec!["```b\n"]),
            ("a ```x``` b", vec![]),
            ("```x``` b", vec![]),
            ("```\r\nx\r\n```\r\n", vec!["x\r\n"]),
            ("``\nx\n``", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(blocks(text), inside, "{text:?}");
        }
    }
}
