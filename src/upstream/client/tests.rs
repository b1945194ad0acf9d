//! Connections over time, to a name that somebody else moves.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::{future, vec};

use bytes::Bytes;
use consort_testkit::provider::{Provider, Reply};
use http::Method;
use http::header::CONTENT_TYPE;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use super::*;

/// The one address that all names have at present.
#[derive(Clone)]
struct Names(Arc<Mutex<SocketAddr>>);

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        future::ready(Ok(vec![*self.0.lock().unwrap()].into_iter()))
    }
}

/// A client for which every name stands for `address`, whatever that is at the time.
fn client(address: &Arc<Mutex<SocketAddr>>, http2: Http2, max_connection_age: Option<Duration>) -> Client {
    let settings = ClientSettings { http2, max_connection_age, ..ClientSettings::default() };
    Client::with_tcp(settings, HttpConnector::new_with_resolver(Names(Arc::clone(address)))).unwrap()
}

async fn ask(client: &Client) -> Reader {
    let body = br#"{"model": "m", "messages": [{"role": "user", "content": "where?"}]}"#;
    let mut request = Request::new(Body::from_chunks([Bytes::from_static(body)]));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "http://models.test/v1/chat/completions".parse().unwrap();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.send(request).await.unwrap().into_body()
}

async fn say_where(client: &Client) -> String {
    String::from_utf8(ask(client).await.collect().await.unwrap().to_vec()).unwrap()
}

async fn provider(says: &str) -> Provider {
    let provider = Provider::start().await;
    provider.model("m").reply(Reply::text(says));
    provider
}

#[tokio::test]
async fn a_name_that_gets_another_address_is_followed_once_its_connection_is_old() {
    for http2 in [Http2::Negotiated, Http2::PriorKnowledge] {
        let (here, there) = (provider("here").await, provider("there").await);
        let address = Arc::new(Mutex::new(here.addr()));
        let pinned = client(&address, http2, None);
        let following = client(&address, http2, Some(Duration::from_millis(1)));
        for client in [&pinned, &following] {
            assert!(say_where(client).await.contains("here"));
        }
        *address.lock().unwrap() = there.addr();
        // The last one on the old connection may be the one that finds it old.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _last = say_where(&following).await;
        assert!(say_where(&following).await.contains("there"), "{http2:?}");
        assert!(say_where(&pinned).await.contains("here"), "{http2:?}: it is kept for its age only");
    }
}

#[tokio::test]
async fn what_is_being_said_on_an_old_connection_is_heard_to_its_end() {
    for http2 in [Http2::Negotiated, Http2::PriorKnowledge] {
        let provider = provider("x").await;
        provider.model("m").reply(Reply::text("a long story").trickle(Duration::from_millis(2)));
        let address = Arc::new(Mutex::new(provider.addr()));
        let client = client(&address, http2, Some(Duration::ZERO));
        let long = ask(&client).await;
        assert!(say_where(&client).await.contains("a long story"));
        let heard = long.collect().await.unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("a long story"), "{http2:?}");
        let requests = provider.requests();
        assert!(requests[0].peer != requests[1].peer, "{http2:?}");
    }
}

#[tokio::test]
async fn no_connection_comes_about_beside_as_many_as_there_may_be() {
    let provider = provider("x").await;
    let uri: http::Uri = provider.base_url().parse().unwrap();
    let settings = ClientSettings {
        max_connections: NonZeroUsize::new(1),
        connect_timeout: Duration::from_millis(300),
        ..ClientSettings::default()
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let mut connector = Connector::new(settings, tcp).unwrap();
    let first = connector.call(uri.clone()).await.map_err(|error| error.to_string());
    let second = connector.call(uri.clone()).await.map(drop).unwrap_err();
    assert!(first.is_ok() && second.to_string().contains("timed out"), "{second}");
    drop(first);
    assert!(connector.call(uri).await.is_ok(), "its place is free");
}
