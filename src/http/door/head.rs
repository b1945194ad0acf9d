//! A caller's head, as HTTP has it.

use axum::http::header::HOST;
use axum::http::request::Parts;

use crate::dispatch::Headers;
use crate::limits::CallerKey;
use crate::signing::Ticket;

/// The head of a request.
pub(super) struct Head(pub(super) Parts);

impl Head {
    /// The ticket that has opened the door.
    pub(super) fn ticket(&self) -> Option<&Ticket> {
        self.0.extensions.get()
    }
}

impl Headers for Head {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.headers.get_all(name).iter().next_back().map(|value| value.as_bytes())
    }

    /// With the pseudo headers that conditions find where Envoy is the door.
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let Parts { method, uri, headers, .. } = &self.0;
        let path = uri.path_and_query().map(|path| path.as_str().as_bytes());
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        let authority = authority.or_else(|| headers.get(HOST).map(|host| host.as_bytes()));
        let pseudo =
            [(":method", Some(method.as_str().as_bytes())), (":path", path), (":authority", authority)];
        let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some((name, value?)));
        pseudo.chain(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
    }

    fn admitted(&self) -> Option<&CallerKey> {
        self.0.extensions.get()
    }

    fn path(&self) -> &str {
        self.0.uri.path()
    }
}
