//! The network between Consort and a provider: proxies, certificates on both sides, protocols, connections.

use std::net::SocketAddr;

use consort_testkit::provider::{Provider, Reply};
use consort_testkit::proxy::Proxy;
use http::Version;
use serde_json::json;

use crate::stack::{Stack, ms};
use crate::tls::{Authority, Pair, TlsFront, quoted};
use crate::upstream::{assert_odd, beside};

/// `user:p@ss` as a proxy wants to hear it.
const AUTHORIZATION: &str = "Basic dXNlcjpwQHNz";

/// The scripted provider that the odd member is at; what reaches it came the odd way.
async fn inside() -> Provider {
    let provider = Provider::start().await;
    provider.require_key("sk-inside");
    provider.model("model-b").reply(Reply::text("two"));
    provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(1)));
    provider
}

/// A proxy that knows `name` and the user.
async fn proxy(name: &str, addr: SocketAddr) -> Proxy {
    let proxy = Proxy::start().await;
    proxy.host(name, addr);
    proxy.require(AUTHORIZATION);
    proxy
}

/// Everything that Consort has said.
fn said(stack: &Stack) -> String {
    format!("{:?}{}", stack.service.logs(), stack.service.stderr())
}

mod proxies {
    use super::*;

    #[tokio::test]
    async fn an_https_provider_is_reached_by_connect_and_the_proxy_reads_nothing_of_it() {
        for alpn in [&["h2", "http/1.1"][..], &["http/1.1"]] {
            let provider = inside().await;
            let front = TlsFront::start(&provider, "models.test", alpn).await;
            let proxy = proxy("models.test:443", front.addr).await;
            let ca = quoted(&front.ca_file());
            let stack = beside(&format!(
                "base_url: 'https://models.test/v1', api_key: sk-inside, tls: {{ca_file: {ca}}},
                 proxy: 'http://user:p%40ss@{}'",
                proxy.addr()
            ));
            let stack = stack.start().await;
            assert_odd(&stack, 0, "usable").await;
            let streamed = stack.ask_stream().send().await;
            assert!(streamed.events().last().is_some_and(|event| event.is_done()), "{}", streamed.text());
            // Not once for each call: the tunnel is kept.
            assert_eq!(proxy.asked(), ["CONNECT models.test:443"]);
            let requests = provider.requests();
            assert_eq!(requests.len(), 4);
            assert!(requests.iter().all(|request| request.header("proxy-authorization").is_empty()));
        }
    }

    #[tokio::test]
    async fn a_plain_provider_is_asked_for_by_its_whole_url() {
        let provider = inside().await;
        let proxy = proxy("models.test:8080", provider.addr()).await;
        let fields = format!(
            "base_url: 'http://models.test:8080/v1', api_key: sk-inside, proxy: 'http://user:p%40ss@{}'",
            proxy.addr()
        );
        let stack = beside(&fields).start().await;
        assert_odd(&stack, 0, "usable").await;
        let asked = proxy.asked();
        assert_eq!(asked, ["POST http://models.test:8080/v1/chat/completions"; 2]);
        let requests = provider.requests();
        assert_eq!(
            (requests[0].path.as_str(), requests[0].header("host")),
            ("/v1/chat/completions", "models.test:8080")
        );
    }

    #[tokio::test]
    async fn prior_knowledge_of_http_2_takes_a_tunnel_also_to_a_plain_provider() {
        let provider = inside().await;
        let proxy = proxy("models.test:80", provider.addr()).await;
        let fields = format!(
            "base_url: 'http://models.test/v1', api_key: sk-inside, http2: prior_knowledge, proxy: 'http://user:p%40ss@{}'",
            proxy.addr()
        );
        assert_odd(&beside(&fields).start().await, 0, "usable").await;
        assert_eq!(proxy.asked(), ["CONNECT models.test:80"]);
        assert!(provider.requests().iter().all(|request| request.version == Version::HTTP_2));
    }

    #[tokio::test]
    async fn a_proxy_may_speak_tls_itself() {
        let provider = inside().await;
        let authority = Authority::new();
        let server = authority.server("models.test", &["h2"], None);
        let proxys = authority.server("127.0.0.1", &[], None);
        let ca = quoted(&authority.ca_file());
        let front = TlsFront::serve(provider.addr(), authority, server).await;
        let proxy = proxy("models.test:443", front.addr).await;
        let secured = TlsFront::serve(proxy.addr(), Authority::new(), proxys).await;
        let fields = format!(
            "base_url: 'https://models.test/v1', api_key: sk-inside, tls: {{ca_file: {ca}}}, proxy: 'https://user:p%40ss@{}'",
            secured.addr
        );
        assert_odd(&beside(&fields).start().await, 0, "usable").await;
        assert_eq!(proxy.asked(), ["CONNECT models.test:443"]);
    }

    #[tokio::test]
    async fn one_that_refuses_is_no_connection_and_its_password_is_nowhere_to_be_read() {
        let provider = inside().await;
        let proxy = proxy("models.test:443", provider.addr()).await;
        let fields = |scheme: &str, password: &str| {
            format!(
                "base_url: '{scheme}://models.test/v1', api_key: sk-inside, proxy: 'http://user:{password}@{}'",
                proxy.addr()
            )
        };
        for (fields, result) in [
            (fields("https", "wr0ng-p4ss"), "connect"),
            (fields("http", "wr0ng-p4ss"), "status"),
            // It knows nobody at port 80.
            (fields("http", "p%40ss"), "server_error"),
        ] {
            let stack = beside(&fields).environment("CONSORT__LOG__LEVEL", "trace").start().await;
            let answer = assert_odd(&stack, 0, result).await;
            let told = format!("{}{}", said(&stack), answer.text());
            for secret in ["wr0ng-p4ss", "p%40ss", "p@ss", "dXNlcjp"] {
                assert!(!told.contains(secret), "{secret}: {told}");
            }
        }
        assert!(provider.requests().is_empty());
    }

    #[tokio::test]
    async fn the_environment_says_which_providers_are_behind_one() {
        let provider = inside().await;
        let front = TlsFront::start(&provider, "models.test", &["h2"]).await;
        let proxy = proxy("models.test:443", front.addr).await;
        let url = format!("http://user:p%40ss@{}", proxy.addr());
        let ca = quoted(&front.ca_file());
        let odd = format!("base_url: 'https://models.test/v1', api_key: sk-inside, tls: {{ca_file: {ca}}}");
        let stack = beside(&odd).environment("https_proxy", &url).environment("HTTP_PROXY", &url);
        // The other member's provider is on this machine, where no proxy leads.
        assert_odd(&stack.start().await, 0, "usable").await;
        assert_eq!(proxy.asked(), ["CONNECT models.test:443"]);
        let exempt = beside(&odd).environment("ALL_PROXY", &url).environment("NO_PROXY", ".test");
        assert_odd(&exempt.start().await, 0, "connect").await;
        let refused = beside(&format!("{odd}, proxy: none")).environment("HTTPS_PROXY", &url);
        assert_odd(&refused.start().await, 0, "connect").await;
        assert_eq!(proxy.asked().len(), 1);
    }
}

mod identity {
    use super::*;

    #[tokio::test]
    async fn a_provider_that_asks_who_we_are_is_shown_our_certificate() {
        for alpn in [&["h2"][..], &["http/1.1"]] {
            let provider = inside().await;
            let (authority, callers) = (Authority::new(), Authority::new());
            let server = authority.server("127.0.0.1", alpn, Some(&callers));
            let front = TlsFront::serve(provider.addr(), authority, server).await;
            let fields = |pair: Option<&Pair>| {
                let (addr, ca) = (front.addr, quoted(&front.ca_file()));
                let own = pair.map_or(String::new(), |pair| {
                    let (certificate, key) = (quoted(&pair.certificate), quoted(&pair.key));
                    format!(", certificate_file: {certificate}, key_file: {key}")
                });
                format!("base_url: 'https://{addr}/v1', api_key: sk-inside, tls: {{ca_file: {ca}{own}}}")
            };
            let stack = beside(&fields(Some(&callers.pair("consort.test")))).start().await;
            assert_odd(&stack, 0, "usable").await;
            for stranger in [None, Some(&Authority::new().pair("consort.test"))] {
                let stack = beside(&fields(stranger)).start().await;
                let answer = stack.ask(json!({})).send().await;
                assert_eq!(answer.header("x-ensemble-outcome"), "single", "TLS 1.3 tells on the first read");
            }
            assert_eq!(provider.requests_for("model-b").len(), 1);
        }
    }

    #[tokio::test]
    async fn a_provider_may_be_known_by_another_name_than_its_urls() {
        let provider = inside().await;
        let front = TlsFront::start(&provider, "models.test", &["h2"]).await;
        let fields = |name: &str| {
            let (addr, ca) = (front.addr, quoted(&front.ca_file()));
            format!(
                "base_url: 'https://{addr}/v1', api_key: sk-inside, tls: {{ca_file: {ca}, server_name: {name}}}"
            )
        };
        assert_odd(&beside(&fields("models.test")).start().await, 0, "usable").await;
        assert_eq!(front.names_asked_for(), ["models.test"; 1]);
        assert_odd(&beside(&fields("other.test")).start().await, 0, "connect").await;
    }
}

mod connections {
    use super::*;

    #[tokio::test]
    async fn http_2_is_spoken_unasked_where_it_is_known_to_be_understood() {
        let provider = inside().await;
        let fields =
            format!("base_url: '{}', api_key: sk-inside, http2: prior_knowledge", provider.base_url());
        let stack = beside(&fields).start().await;
        assert_odd(&stack, 0, "usable").await;
        let streamed = stack.ask_stream().send().await;
        assert!(streamed.events().last().is_some_and(|event| event.is_done()), "{}", streamed.text());
        let requests = provider.requests();
        assert!(requests.iter().all(|request| request.version == Version::HTTP_2), "{requests:#?}");
        assert!(requests.iter().all(|request| request.peer == requests[0].peer));
    }

    #[tokio::test]
    async fn a_bounded_number_of_them_serves_any_number_of_calls() {
        let provider = inside().await;
        provider.model("model-b").reply(Reply::text("two").delay(ms(100)));
        // Who waits for longer than this waits for a connection to be free, and not for one to come about.
        let bounds = "connect_timeout_ms: 400, max_connections: 2";
        let fields = format!("base_url: '{}', api_key: sk-inside, {bounds}", provider.base_url());
        let stack = beside(&fields).start().await;
        let calls: Vec<_> = (0..12).map(|_| tokio::spawn(stack.ask(json!({})).send())).collect();
        for call in calls {
            assert_eq!(call.await.expect("it ends").header("x-ensemble-outcome"), "full");
        }
        let mut peers: Vec<_> = provider.requests().iter().map(|request| request.peer).collect();
        peers.sort();
        peers.dedup();
        assert_eq!((provider.requests().len(), peers.len()), (24, 2));
    }

    #[tokio::test]
    async fn a_call_waits_for_one_within_its_own_bounds_and_leaves_the_queue_with_its_caller() {
        let provider = inside().await;
        provider.model("model-b").reply(Reply::stall()).then(Reply::text("two"));
        let fields = format!("base_url: '{}', api_key: sk-inside, max_connections: 1", provider.base_url());
        let stack = beside(&fields).start().await;
        let first = tokio::spawn(stack.ask(json!({})).try_open());
        provider.wait_for("model-b", 1).await;
        let second = tokio::spawn(stack.ask(json!({})).try_open());
        stack.provider.wait_for("model-a", 2).await;
        second.abort();
        stack.runs_logged(1).await;
        first.abort();
        provider.wait_for_closed("model-b", 1).await;
        assert_odd(&stack, 2, "usable").await;
        assert_eq!(provider.requests_for("model-b").len(), 2, "who waited in vain never asked");
    }

    #[tokio::test]
    async fn calls_over_http_2_share_the_one_that_there_may_be() {
        let provider = inside().await;
        provider.model("model-b").reply(Reply::text("two")).then(Reply::stall());
        let front = TlsFront::start(&provider, "127.0.0.1", &["h2", "http/1.1"]).await;
        let stack = beside(&format!("{}, max_connections: 1", front.fields())).start().await;
        assert_odd(&stack, 0, "usable").await;
        let calls: Vec<_> = (0..3).map(|_| tokio::spawn(stack.ask(json!({})).try_open())).collect();
        let requests = provider.wait_for("model-b", 4).await;
        assert!(requests.iter().all(|request| request.peer == requests[0].peer));
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn one_that_has_grown_old_is_not_used_again() {
        let provider = inside().await;
        let fields =
            format!("base_url: '{}', api_key: sk-inside, max_connection_age_ms: 1", provider.base_url());
        let stack = beside(&fields).start().await;
        provider.model("model-b").reply(Reply::text("two").delay(ms(5)));
        for run in 0..3 {
            assert_odd(&stack, run, "usable").await;
        }
        let requests = provider.requests_for("model-b");
        assert!(requests[0].peer != requests[1].peer && requests[1].peer != requests[2].peer);
    }
}
