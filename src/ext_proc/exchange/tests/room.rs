//! Bodies that are held, beside others.

use super::*;

#[test]
fn bodies_that_are_held_share_one_room_until_their_exchanges_are_over() {
    let room = Room::new(40);
    let exchange = || {
        let snapshot = Arc::new(Snapshot::new([fixture::ensemble("team")]));
        let mut exchange = Exchange::new(snapshot, ModeOverride::Standalone, 1 << 20, room.share());
        exchange.receive(chat(BodySendMode::FullDuplexStreamed));
        exchange
    };
    let (alias, plain) = (r#"{"model":"team","x":"0123456789"}"#, r#"{"model":"gpt-4o","x":"0123456789"}"#);
    let mut first = exchange();
    assert!(matches!(first.receive(body(alias, true)), Step::Answer(_)));
    // Its run holds it still. What passes needs no room, what is collected finds none.
    assert!(matches!(exchange().receive(body(plain, true)), Step::Finish(_)));
    let Step::Refuse(error) = exchange().receive(body(alias, false)) else { panic!("there is room") };
    assert_eq!((error.status, error.label), (503, "overloaded"));
    assert!(matches!(exchange().receive(body("{\"x\":\"", false)), Step::Send(_)), "to the bound");
    drop(first);
    assert!(matches!(exchange().receive(body(alias, true)), Step::Answer(_)));
}
