//! The proxy on the way to a provider.

use std::fmt;
use std::net::IpAddr;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// An HTTP proxy, with what it wants to know of us.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Reads `http://user:password@host:port`, where user and password may be percent-encoded, and all but the host
    /// may be left out. None for what is no HTTP proxy's URL.
    pub fn parse(url: &str) -> Option<Self> {
        let found = Matcher::builder().all(url).build().intercept(&Uri::from_static("http://anywhere"))?;
        let is_http = matches!(found.uri().scheme_str(), Some("http" | "https"));
        let has_host = found.uri().host().is_some_and(|host| !host.is_empty());
        let authorization = found.basic_auth().cloned();
        (is_http && has_host).then(|| Self { uri: found.uri().clone(), authorization })
    }

    /// The proxy that environment variables name for a provider at `base_url`, by the conventions of curl:
    /// `HTTPS_PROXY` or `HTTP_PROXY` by the URL's scheme, or else `ALL_PROXY`, unless `NO_PROXY` has its host; all of
    /// them in lower case, too. A provider on this machine is never behind one.
    ///
    /// # Errors
    /// The name of the variable that holds no proxy's URL.
    pub fn of_environment<'a>(
        base_url: &Uri,
        variable: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Option<Self>, &'static str> {
        let of_scheme = if base_url.scheme() == Some(&Scheme::HTTPS) {
            ["HTTPS_PROXY", "https_proxy"]
        } else {
            ["HTTP_PROXY", "http_proxy"]
        };
        let set = |name: &'static str| Some((name, variable(name).filter(|text| !text.is_empty())?));
        let mut found = of_scheme.into_iter().chain(["ALL_PROXY", "all_proxy"]).filter_map(set);
        let Some((name, url)) = found.next() else {
            return Ok(None);
        };
        let exempt = ["NO_PROXY", "no_proxy"].into_iter().find_map(set).map_or("", |(_, hosts)| hosts);
        if is_this_machine(base_url) || is_exempt(base_url, exempt) {
            return Ok(None);
        }
        Self::parse(url).map(Some).ok_or(name)
    }

    /// Where it is.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `proxy-authorization`, marked sensitive.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether `hosts` has the URL's: a list of domains, which stand for all below them, of addresses and networks; or
/// `*`.
fn is_exempt(url: &Uri, hosts: &str) -> bool {
    Matcher::builder().all("http://proxy").no(hosts).build().intercept(url).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(proxy: &Proxy) -> String {
        let authorization = proxy.authorization.as_ref().map_or("-", |value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap()
        });
        format!("{} {authorization}", proxy.uri)
    }

    #[test]
    fn a_proxy_is_a_host_with_or_without_a_port_and_credentials() {
        for (url, expected) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128/ -"),
            ("proxy.internal:3128", "http://proxy.internal:3128/ -"),
            ("https://proxy.internal/", "https://proxy.internal/ -"),
            // u:p
            ("http://u:p@h:1", "http://h:1/ Basic dTpw"),
            // u:p@/
            ("http://u:p%40%2F@h:1", "http://h:1/ Basic dTpwQC8="),
            ("http://[::1]:3128", "http://[::1]:3128/ -"),
        ] {
            assert_eq!(shown(&Proxy::parse(url).unwrap()), expected, "{url}");
        }
        for url in ["", "http://", "http://:3128", "socks5://h:1", "ftp://h", "/path", "no url"] {
            assert!(Proxy::parse(url).is_none(), "{url}");
        }
        let debugged = format!("{:?}", Proxy::parse("http://user:secret@h:1"));
        assert!(!debugged.contains("secret") && !debugged.contains("Basic"), "{debugged}");
    }

    #[test]
    fn the_environment_names_a_proxy_by_the_conventions_of_curl() {
        let found = |url: &'static str, variables: &[(&str, &'static str)]| {
            let variable = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, text)| *text);
            Proxy::of_environment(&Uri::from_static(url), variable)
                .map(|proxy| proxy.map_or("-".to_owned(), |proxy| proxy.uri.to_string()))
        };
        let all = [("HTTPS_PROXY", "http://s"), ("HTTP_PROXY", "http://h"), ("ALL_PROXY", "http://a")];
        for (url, variables, expected) in [
            ("https://api.test/v1", &all[..], "http://s/"),
            ("http://api.test/v1", &all, "http://h/"),
            ("https://api.test/v1", &all[1..], "http://a/"),
            ("https://api.test/v1", &all[1..2], "-"),
            ("https://api.test/v1", &[("https_proxy", "low:1"), ("HTTPS_PROXY", "")], "http://low:1/"),
            ("https://api.test/v1", &[("HTTPS_PROXY", "x"), ("NO_PROXY", "other.test, .test")], "-"),
            ("https://api.test/v1", &[("HTTPS_PROXY", "x"), ("no_proxy", "*")], "-"),
            ("https://api.test/v1", &[("HTTPS_PROXY", "x"), ("NO_PROXY", "pi.test")], "http://x/"),
            ("https://10.1.2.3/v1", &[("HTTPS_PROXY", "x"), ("NO_PROXY", "10.0.0.0/8")], "-"),
            ("http://localhost:1/v1", &all, "-"),
            ("http://127.0.0.9:1/v1", &all, "-"),
            ("http://[::1]:1/v1", &all, "-"),
            ("https://api.test/v1", &[], "-"),
        ] {
            assert_eq!(found(url, variables).as_deref(), Ok(expected), "{url} {variables:?}");
        }
        let bad = [("HTTPS_PROXY", "socks5://h")];
        assert_eq!(found("https://api.test", &bad), Err("HTTPS_PROXY"));
        assert_eq!(found("https://localhost", &bad).as_deref(), Ok("-"), "nobody would have asked it");
    }
}
