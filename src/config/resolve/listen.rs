//! Where Consort listens, and who may call there.

use super::super::problem::{Path, Report};
use super::super::schema::{File, SocketAccess};
use super::super::{Address, Listen};

/// What turns a listener off.
const NONE: &str = "none";

/// The addresses; nothing when one of them is none.
pub(super) fn listen(file: &File, report: &mut Report) -> Option<Listen> {
    let list = Path::root().key("listen");
    let ext_proc = address(&file.listen.ext_proc);
    if ext_proc.is_none() {
        report.add(list.key("ext_proc"), "expected `host:port` or `unix:/path`");
    }
    let admin = match file.listen.admin.as_str() {
        NONE => Some(None),
        written => address(written).map(Some),
    };
    if admin.is_none() {
        report.add(list.key("admin"), "expected `host:port`, `unix:/path` or `none`");
    }
    let http = file.listen.http.as_deref().map_or(Some(None), |written| address(written).map(Some));
    if http.is_none() {
        report.add(list.key("http"), "expected `host:port` or `unix:/path`");
    }
    let socket_mode = match file.listen.socket_access {
        SocketAccess::Owner => 0o600,
        SocketAccess::Group => 0o660,
        SocketAccess::Everyone => 0o666,
    };
    Some(Listen { ext_proc: ext_proc?, http: http?, admin: admin?, socket_mode })
}

fn address(written: &str) -> Option<Address> {
    match written.strip_prefix("unix:") {
        Some(socket) => socket.starts_with('/').then(|| Address::Unix(socket.into())),
        None => written
            .rsplit_once(':')
            .filter(|(host, port)| {
                let ipv6 = host.starts_with('[') && host.ends_with(']');
                !host.is_empty() && (ipv6 || !host.contains(':')) && port.parse::<u16>().is_ok()
            })
            .map(|_| Address::Tcp(written.to_owned())),
    }
}

/// The names that the admin listener may be reached by: a host without a port, as it stands in `host`.
pub(super) fn admin_hosts(file: &File, report: &mut Report) -> Vec<String> {
    let list = Path::root().key("admin").key("hosts");
    let hosts = file.admin.hosts.iter().enumerate();
    hosts
        .filter_map(|(i, host)| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let is_ipv6 = host.starts_with('[') && host.ends_with(']');
            if is_ipv6 || (!host.is_empty() && host.chars().all(is_plain)) {
                return Some(host.to_ascii_lowercase());
            }
            report.add(list.index(i), "expected a host's name or address, without scheme and port");
            None
        })
        .collect()
}
