//! Requests that carry what only Consort may say.

use super::*;

#[test]
fn what_only_consort_may_say_goes_no_further() {
    use BodySendMode::{Buffered, BufferedPartial, FullDuplexStreamed, None, Streamed};
    let said: Vec<(&str, &str)> = [CHAT, &[("x-consort-ticket", "t"), ("x-consort-marker", "m")]].concat();
    let stripped = "headers[-x-consort-ticket][-x-consort-marker]";
    for base in [None, Streamed, FullDuplexStreamed] {
        let steps = play(&mut exchange(), [headers(Some(base), &said, false), body(PLAIN, true)]);
        assert_eq!(steps[1], format!("finish {stripped} echo({PLAIN}!)"), "{base:?}");
    }
    for base in [Buffered, BufferedPartial] {
        let steps = play(&mut exchange(), [headers(Some(base), &said, false), body(PLAIN, true)]);
        assert_eq!(steps, [format!("send {stripped}"), "finish body".to_owned()], "{base:?}");
    }
    let get = [(":method", "GET"), (":path", "/"), ("x-consort-marker", "m")];
    for (base, end) in [(None, false), (Buffered, true)] {
        let steps = play(&mut exchange(), [headers(Some(base), &get, end)]);
        assert_eq!(steps, ["finish headers[-x-consort-marker]"], "{base:?}");
    }
}

#[test]
fn a_call_of_consorts_own_passes_as_it_is() {
    use BodySendMode::{Buffered, FullDuplexStreamed, None};
    let marked: Vec<(&str, &str)> = [CHAT, &[("content-length", "16"), ("x-consort-marker", "m")]].concat();
    let pass = |base, messages: Vec<pb::ProcessingRequest>| {
        let mut exchange = exchange();
        let asked = messages.into_iter().map(|m| exchange.receive(m)).last();
        let Some(Step::Answer(asked)) = asked else { panic!("{base:?}: {asked:?}") };
        told(&exchange.pass(asked.body))
    };
    for base in [None, FullDuplexStreamed] {
        let head = || headers(Some(base), &marked, false);
        let passed = pass(base, vec![head(), body(ALIAS, true)]);
        assert_eq!(passed, format!("finish headers[-x-consort-marker] echo({ALIAS}!)"));
        let passed = pass(base, vec![head(), body(ALIAS, false), trailers()]);
        assert_eq!(passed, format!("finish headers[-x-consort-marker] echo({ALIAS}) trailers"));
    }
    let head = || headers(Some(Buffered), &marked, false);
    assert_eq!(pass(Buffered, vec![head(), body(ALIAS, true)]), "finish body");
    assert_eq!(pass(Buffered, vec![head(), body(ALIAS, false)]), "send body", "trailers follow");
}
