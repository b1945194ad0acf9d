use proptest::prelude::*;

use super::*;
use crate::ensemble::answer::{Number, place};

fn read(text: &str) -> Option<String> {
    place::find(text, true, number).map(|found| {
        assert!(text.is_char_boundary(found.span.start) && text.is_char_boundary(found.span.end));
        found.value.to_string()
    })
}

#[track_caller]
fn assert_reads(rows: &[(&str, Option<&str>)]) {
    let wrong: Vec<_> = rows.iter().filter(|(text, value)| read(text).as_deref() != *value).collect();
    let read: Vec<_> = wrong.iter().map(|(text, _)| read(text)).collect();
    assert!(wrong.is_empty(), "{wrong:#?} read as {read:?}");
}

#[test]
fn the_last_line_gives_its_last_number() {
    assert_reads(&[
        ("18", Some("18")),
        ("**18**", Some("18")),
        ("$1,234.50", Some("1234.5")),
        ("1234.5 dollars", Some("1234.5")),
        ("50%", Some("50")),
        ("So she has 18 eggs.", Some("18")),
        ("x = 5", Some("5")),
        ("16 - 7 = 9 eggs", Some("9")),
        ("First 3.\nThen 4.\n\nSo 7 in all.\n\n", Some("7")),
        ("16 + 2\n= 18\n", Some("18")),
        ("She sells 9 eggs at $2, so she makes $18.", Some("18")),
        ("9 * 2 = **18**.", Some("18")),
        ("$$x = \\frac{1}{2}$$", Some("0.5")),
        ("\\[\nx = 18\n\\]", Some("18")),
        ("$9 \\times 2 = 18$", Some("18")),
        ("That makes 18 (eighteen).", Some("18")),
        ("The temperature is \u{2212}4 °C.", Some("-4")),
        ("It takes 1.5 × 10^3 s", Some("1500")),
        ("共18个", Some("18")),
        ("After 3 weeks, 18 eggs are left.", Some("18")),
        ("Of these, 3/4 are left", Some("0.75")),
        ("Let me know if you have questions!", None),
        ("18\nLet me know if you have questions!", None),
        ("", None),
        ("\n \n", None),
    ]);
}

#[test]
fn what_may_be_no_single_number_abstains() {
    assert_reads(&[
        ("At 12:30.", None),
        ("At 12:30:15.", None),
        ("On 2024-05-01.", None),
        ("On 05/01/2024.", None),
        ("On 1.5.2024.", None),
        ("On May 5, 2024", None),
        ("10-12", None),
        ("10–12 eggs", None),
        ("10 - 12 eggs", None),
        ("10 to 12 eggs", None),
        ("between 10 and 12 eggs", None),
        ("3, 4 and 5", None),
        ("1, 2", None),
        ("16 - 7", None),
        ("So it is 9 * 2", None),
        ("9 eggs * $2/egg", None),
        ("3 apples and 5 pears", None),
        ("5 hours and 30 minutes", None),
        ("5 hours 30 minutes", None),
        ("5 hours, 30 minutes", None),
        ("5 ft 10 in", None),
        ("5'10\"", None),
        ("3 dollars and 50 cents", None),
        ("a ratio of 3:4", None),
        ("a ratio of 3 : 4", None),
        ("version 1.2.3", None),
        ("18 or 19", None),
        ("18 ± 2", None),
        ("3 by 4 metres", None),
        ("1,23,4", None),
        ("12.34.5", None),
        ("(1,5)", None),
        ("12 34", None),
        ("1e999999999", None),
        ("x = 2\\sqrt{3}", None),
    ]);
}

#[test]
fn a_statement_gives_the_number_that_follows_it() {
    assert_reads(&[
        ("The answer is 18.", Some("18")),
        ("The answer is 18. It took 3 steps.", Some("18")),
        ("the ANSWER is: 18", Some("18")),
        ("Answer: 18\n\nThis took 3 steps.", Some("18")),
        ("**Answer:** 18\nChecked in 2 ways", Some("18")),
        ("**Answer**: $18 per day for 7 days", Some("18")),
        ("Answer: **18** of 20", Some("18")),
        ("### Final Answer\nThe final answer is $18$. I hope it is correct.", Some("18")),
        ("The answer to the question is 18 because 9 * 2 = 18", Some("18")),
        ("The answer should be about 18, give or take 1.", Some("18")),
        ("Answer = 18 in 3 steps", Some("18")),
        ("The answer is x = 5, since 2 * 5 = 10.", Some("5")),
        ("The answer is 16 - 7 = 9 eggs.", Some("9")),
        ("The answer is 10. Wait: the answer is 12. That took 3 tries.", Some("12")),
        ("The answer is 18. Is that answer right? The answer is correct, in 1 try.", Some("18")),
        ("Answer:\n18", Some("18")),
        ("**Answer:**\n\n18 eggs", Some("18")),
        ("The answer is $\\frac{1}{2}$ of 36.", Some("0.5")),
        ("The answer is $\\text{approximately } 18$, after 2 steps.", Some("18")),
        ("The answer is 10 to 12.\nThat took 3 steps.", None),
        ("Answer: 5 hours and 30 minutes\nThat took 3 steps.", None),
        ("The answer is 10. Or rather, the answer is 1,23,4. That took 3 steps.", None),
        ("Answer:\n16 - 7 = 9\n9 * 2 = 18", Some("18")),
        ("Answer: 16 - 7 = 9. Then 9 * 2 = 18.", Some("18")),
        ("Answer: let us see. She has 16 eggs and eats 7.\nSo 9.", Some("9")),
        ("The answer is as follows.\nIt is 18.", Some("18")),
    ]);
}

#[test]
fn hashes_give_the_number_and_headings_do_not() {
    assert_reads(&[
        ("9 * 2 = 18\n#### 18", Some("18")),
        ("#### 18\n\nIt took 3 steps.", Some("18")),
        ("#### $1,234.50", Some("1234.5")),
        ("#### -5 degrees.", Some("-5")),
        ("#### 10\n#### 12\nIn 3 steps", Some("12")),
        ("####18", Some("18")),
        ("The answer is 3.\n#### 18", Some("18")),
        ("#### 1. Count\nThere are 18.", Some("18")),
        ("#### Step 2: count\nThere are 18.", Some("18")),
        ("#### 2 steps make it work\nThere are 18.", Some("18")),
        ("##### 3\nThere are 18.", Some("18")),
    ]);
}

#[test]
fn the_last_box_decides() {
    assert_reads(&[
        (r"\boxed{18}", Some("18")),
        (r"So $\boxed{18}$ eggs after 3 days", Some("18")),
        (r"$\boxed{\frac{1}{2}}$ in 3 steps", Some("0.5")),
        (r"\boxed{\dfrac{1}{2}}", Some("0.5")),
        (r"\boxed{-\frac{\,1\,}{2}}", None),
        (r"\boxed{\text{18 eggs}}", Some("18")),
        (r"\boxed{18\text{ eggs}}", Some("18")),
        (r"\boxed{\$1{,}234.50}", Some("1234.5")),
        (r"\boxed{1,234}", Some("1234")),
        (r"\boxed{1,5}", Some("1.5")),
        (r"\boxed{50\%}", Some("50")),
        (r"\boxed{x = 5}", Some("5")),
        (r"\boxed{\mathbf{18}}", Some("18")),
        (r"\boxed{16 - 7 = 9}", Some("9")),
        (r"\boxed{10} or rather \boxed{12}. That took 3 steps", Some("12")),
        (r"\boxed {18}", Some("18")),
        (r"\fbox{18}", Some("18")),
        (r"\boxed{18", Some("18")),
        ("\\boxed{18\nand 3 more", Some("18")),
        ("#### 3\nAnswer: 4\n\\boxed{18}\n5", Some("18")),
        (r"\boxed{5 \text{ hours } 30 \text{ minutes}}", None),
        (r"\boxed{2\sqrt{3}}", None),
        (r"\boxed{2\pi}", None),
        (r"\boxed{10^6}", Some("1000000")),
        (r"\boxed{1.5 \times 10^{3}}", Some("1500")),
        (r"\boxed{\text{none}} of 18", None),
        (r"\boxed{(3, 4)}", None),
    ]);
}

#[test]
fn an_answer_field_decides_even_where_the_json_around_it_is_broken() {
    assert_reads(&[
        (r#"{"answer": "18"}"#, Some("18")),
        (r#"{"answer": 18}"#, Some("18")),
        (r#"{"answer": 18, "steps": 3}"#, Some("18")),
        (r#"{"answer":18.50,"steps":3}"#, Some("18.5")),
        (r#"{"answer": 1e3}"#, Some("1000")),
        (r#"{"answer": -0.5 }"#, Some("-0.5")),
        (
            "```json\n{\n  \"reasoning\": \"9 * 2\",\n  \"answer\": \"$1,234.50\"\n}\n```\nIn 3 steps.",
            Some("1234.5"),
        ),
        ("Here it is: {\"reasoning\": \"a\nb \\$ c\", \"answer\": \"18\"} 3", Some("18")),
        (r#"{"reasoning": "so $\boxed{3}$", "answer": "18"}"#, Some("18")),
        (r#"{"answer": "10"} no, {"answer": "12"}"#, Some("12")),
        (r#"{'answer': '18'}"#, Some("18")),
        (r#"{"Answer": "18"}"#, Some("18")),
        (r#"{"final_answer": "18"}"#, Some("18")),
        (r#"{"answer": "18 dollars per 2 hours"}"#, Some("18")),
        (r#"{"answer": "18 (9 * 2)"}"#, Some("18")),
        (r#"{"answer": "1,360 - (64 + 78) = 1,218"}"#, Some("1218")),
        (r#"{"answer": "\u20ac18"}"#, Some("18")),
        (r#"{"answer": "\u221218"}"#, Some("-18")),
        (r#"{"answer": "\n18\n"}"#, Some("18")),
        (r#"{"answer": "\\boxed{18}"}"#, Some("18")),
        (r#"{"answer": "\\frac{1}{2}"}"#, Some("0.5")),
        (r#"{"answer": "\frac{1}{2}"}"#, Some("0.5")),
        (r#"{"answer": "3 1/3"}"#, Some("10/3")),
        (r#"{"answer": "2:00 pm"}"#, Some("2")),
        (r#"{"answer": "18"#, Some("18")),
        (r#"{"answer": {"value": 18}}"#, Some("18")),
        ("{\"answer\": 18,\n\"unit\": 3}", Some("18")),
        (r#"{"answer": "2:10 pm"}"#, None),
        (r#"{"answer": "27 selfies and 18 portraits"}"#, None),
        (r#"{"answer": "It had 27 selfies, then 18 portraits"}"#, None),
        (r#"{"answer": "1/3 or approximately 33.33%"}"#, None),
        (r#"{"answer": "It cannot be told."} 18"#, None),
        (r#"{"answer": "___"} 18"#, None),
        (r#"{"answer": ""} 18"#, None),
        (r#"{"answer": null} 18"#, None),
        (r#"{"answer": {"value": 18, "steps": 3}}"#, None),
        (r#"{"answer": [1, 2]}"#, None),
        (r#"{"result": 18}"#, None),
        ("```json\n{\n\"result\": 18\n}\n```", None),
    ]);
}

#[test]
fn where_it_stands_is_where_its_text_is_printed() {
    for (text, printed) in [
        ("é: The answer is $1,234.50!", "1,234.50"),
        ("é\n#### 18", "18"),
        (r#"é {"answer": "\u20ac\n18.0 €"}"#, "18.0"),
        (r"é \boxed{\$18}", "18"),
        (r#"{"answer": "\\frac{1}{2}"}"#, r"\\frac{1}{2}"),
        ("é é\nso -$18", "-$18"),
    ] {
        let found = place::find(text, true, number).unwrap();
        assert_eq!(&text[found.span], printed, "{text}");
    }
}

proptest! {
    #[test]
    fn a_printed_number_is_read_back(numerator in -1_000_000_000..1_000_000_000_i64, denominator in 1..5000_i64) {
        let ratio = num_rational::BigRational::new(numerator.into(), denominator.into());
        let number = Number::from(ratio);
        let printed = number.to_string();
        prop_assert_eq!(stated(&printed).unwrap().value, number.clone());
        prop_assert_eq!(read(&format!("The answer is {printed}.")), Some(printed.clone()));
        prop_assert_eq!(read(&format!("{{\"answer\": \"{printed} kg\"}}")), Some(printed));
        let rounded = number.print(3);
        let found = stated(&rounded).unwrap();
        prop_assert_eq!((found.value.print(3), found.decimals), (rounded, 3));
    }

    #[test]
    fn no_text_is_too_odd(text in "[-0-9.,:/ (){}$\\\\^\"a-eé\u{2212}\u{a0}\n#]{0,40}", whole in any::<bool>()) {
        if let Some(found) = place::find(&text, whole, number) {
            prop_assert!(text.get(found.span).is_some_and(|printed| printed.contains(|c: char| c.is_ascii_digit())));
        }
    }
}
