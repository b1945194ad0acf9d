//! A panel of three, and their judge, that answer two questions from a script: what stands in for language models where
//! there are none, in the demo and in `deploy/envoy/docker-compose.yaml`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::provider::{Provider, Received, Reply};

/// Listens at `addr`, and answers as `quick`, `steady`, `slow` and `judge`: of the sky, of leaves, and of nothing else.
///
/// They take their time as models do: a quarter of a second, more than a half, and one that may be left behind. Callers
/// may try what they like, and nothing that they say is kept.
pub async fn start(addr: SocketAddr) -> Provider {
    let provider = Provider::bind(addr).await;
    provider.forgive();
    provider.forget_contents();
    let ms = Duration::from_millis;
    provider.model("quick").answer(move |asked| {
        said(
            asked,
            "Air scatters blue light more than red.",
            "They stop making chlorophyll, which is green, and the yellow that was there all along shows.",
        )
        .delay(ms(250))
    });
    provider.model("steady").answer(move |asked| {
        said(
            asked,
            "Molecules of air scatter short waves far more strongly than long ones (Rayleigh scattering), and blue is \
             short.",
            "The tree takes its chlorophyll back before winter; carotenoids remain, and they are yellow.",
        )
        .delay(ms(600))
    });
    provider.model("slow").answer(move |asked| {
        let delay = if about(asked, "sky") { 900 } else { 6000 };
        said(asked, "Because of the sea.", "Because they are tired.").delay(ms(delay))
    });
    provider.model("judge").answer(move |asked| {
        said(
            asked,
            "Sunlight holds all colours, and the molecules of the air scatter its short waves far more strongly than \
             its long ones. So blue light reaches us from every part of the sky.",
            "In autumn a tree breaks down its chlorophyll, the green of its leaves, and keeps what is worth keeping. \
             The yellow carotenoids, which were there all summer, are what is left to see.",
        )
        .gap(ms(40))
    });
    provider
}

fn said(asked: &Received, of_the_sky: &str, of_leaves: &str) -> Reply {
    Reply::text(if about(asked, "sky") {
        of_the_sky
    } else if about(asked, "leaves") {
        of_leaves
    } else {
        "I am a script, and know about the sky and about leaves."
    })
}

/// Looks at the first message alone: what a judge is sent holds the drafts too.
fn about(asked: &Received, word: &str) -> bool {
    asked.json.pointer("/messages/0/content").is_some_and(|content| content.to_string().contains(word))
}
