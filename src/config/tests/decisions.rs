//! Where decisions go.

use super::*;
use crate::telemetry::DecisionFile;

#[test]
fn the_newest_decisions_are_kept_without_texts_unless_a_file_says_otherwise() {
    let sinks = |fields: &str| yaml(&format!("{MODELS}\ndecisions: {{{fields}}}")).unwrap().decisions;
    let default = Sinks { ring: 1000, ring_bytes: 64 << 20, ..Sinks::default() };
    assert_eq!(sinks(""), default);
    assert_eq!(sinks("max_content_bytes: 5"), default, "a bound alone wants no texts");
    assert_eq!(sinks("include_content: true").max_content_bytes, Some(4096));
    assert_eq!(
        sinks(
            "file: {path: /d, max_bytes: 65536}, journal: /j, stdout: true, ring: 0, ring_bytes: 9, include_content: true, max_content_bytes: 5"
        ),
        Sinks {
            file: Some(DecisionFile { path: "/d".into(), max_bytes: Some(65_536) }),
            journal: Some("/j".into()),
            stdout: true,
            ring: 0,
            ring_bytes: 9,
            max_content_bytes: Some(5),
        }
    );
    insta::assert_snapshot!(problems(
        "decisions: {file: {max_bytes: 1}, ring: 100001, ring_bytes: 0, max_content_bytes: 0, include_contents: true}"
    ), @r#"
    decisions.file.max_bytes: must be at least 65536
    decisions.file.path: is required
    decisions.include_contents: unknown key (did you mean "include_content"?)
    decisions.max_content_bytes: must be from 1 to 1048576
    decisions.ring: must be from 0 to 100000
    decisions.ring_bytes: must be at least 1
    "#);
    insta::assert_snapshot!(problems("decisions: {file: {path: ''}, journal: ''}"), @"
    decisions.file.path: must not be empty
    decisions.journal: must not be empty
    ");
    insta::assert_snapshot!(
        problems("decisions: {file: {path: /d}, journal: //./d}"),
        @"decisions.journal: must not be the file of decisions"
    );
    for others in
        ["{file: {path: /d, max_bytes: 65536}, journal: /d.1}", "{file: {path: /d.new}, journal: /d}"]
    {
        let told = problems(&format!("decisions: {others}"));
        assert_eq!(told, "decisions.journal: must not share `….1` or `….new` with the file of decisions");
    }
}
