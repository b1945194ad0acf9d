//! What is where in a `/config_dump`.

use serde_json::Value;

use super::{at, list};

/// The parts of a dump that matter here, static and dynamic ones alike.
pub(super) struct Dump<'a> {
    /// Major and minor version of the Envoy.
    pub(super) version: Option<(u64, u64)>,
    listeners: Vec<&'a Value>,
    routes: Vec<&'a Value>,
    clusters: Vec<&'a Value>,
}

/// An HTTP connection manager, and where it stands.
pub(super) struct Manager<'a> {
    pub(super) listener: &'a Value,
    /// Its own configuration.
    pub(super) value: &'a Value,
    /// Its routes, wherever they came from; null where they have not come yet.
    pub(super) routes: &'a Value,
}

impl<'a> Dump<'a> {
    pub(super) fn read(dump: &'a Value) -> Self {
        let configs = || list(at(dump, "configs"));
        let of = |lists: &[(&str, &str)]| {
            let found = configs().flat_map(|config| {
                lists.iter().flat_map(|(all, one)| list(at(config, all)).map(|entry| at(entry, one)))
            });
            found.filter(|value| !value.is_null()).collect::<Vec<_>>()
        };
        let version = configs()
            .map(|config| at(config, "bootstrap.node.user_agent_build_version.version"))
            .find_map(|version| {
                Some((version.get("major_number")?.as_u64()?, version.get("minor_number")?.as_u64()?))
            });
        Self {
            version,
            listeners: of(&[
                ("static_listeners", "listener"),
                ("dynamic_listeners", "active_state.listener"),
            ]),
            routes: of(&[
                ("static_route_configs", "route_config"),
                ("dynamic_route_configs", "route_config"),
            ]),
            clusters: of(&[("static_clusters", "cluster"), ("dynamic_active_clusters", "cluster")]),
        }
    }

    pub(super) fn cluster(&self, name: &str) -> Option<&'a Value> {
        self.clusters.iter().copied().find(|cluster| at(cluster, "name") == name)
    }

    /// Every HTTP connection manager of every listener.
    pub(super) fn managers(&self) -> Vec<Manager<'a>> {
        let mut managers = Vec::new();
        for &listener in &self.listeners {
            let default = std::iter::once(at(listener, "default_filter_chain"));
            let chains = list(at(listener, "filter_chains")).chain(default);
            for filter in chains.flat_map(|chain| list(at(chain, "filters"))) {
                let value = at(filter, "typed_config");
                if value.get("http_filters").is_some() {
                    managers.push(Manager { listener, value, routes: self.routes_of(value) });
                }
            }
        }
        managers
    }

    fn routes_of(&self, manager: &'a Value) -> &'a Value {
        let name = at(manager, "rds.route_config_name");
        let discovered =
            self.routes.iter().copied().find(|routes| !name.is_null() && at(routes, "name") == name);
        discovered.unwrap_or_else(|| at(manager, "route_config"))
    }
}
