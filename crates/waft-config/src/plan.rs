//! The plan: everything that was configured, read and judged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use waft_route::{Condition, Problem, Route, RouteOptions, Severity, Table, Target, TargetAddress};

use crate::mistake::Mistake;
use crate::realm::{self, RealmEntry};
use crate::route::{Defaults, RouteEntry, base_options};
use crate::section::{Key, Section};
use crate::settings::{
    Control, Forward, Grip, Limits, Log, Logging, Metrics, Mongrel2, Outbound, Server, SockJs, Stats, WebSocket,
    Webhooks, Workers, Zmq,
};

/// Defines the plan and the file it is read from, which have the same sections.
macro_rules! plan {
    ($( $(#[doc = $doc:literal])+ $section:ident : $ty:ty, )+) => {
        /// Everything that was configured. It holds no nonsense: what cannot work was refused before.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Plan {
            $( $(#[doc = $doc])+ pub $section: $ty, )+
            /// The routes, each with all options that count for it.
            pub routes: Vec<Route>,
            /// The realms of the push service.
            pub realms: Vec<RealmEntry>,
            /// The file that the routes were read from, if they have one of their own.
            pub routes_file: Option<PathBuf>,
            /// What was read and has no effect, or an effect that may surprise, a sentence each.
            pub notes: Vec<String>,
        }

        /// The native file. Each key is there or takes its default.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct File {
            pub(crate) routes_file: Option<PathBuf>,
            $( pub(crate) $section: $ty, )+
            pub(crate) route: Option<Vec<RouteEntry>>,
            pub(crate) realm: Vec<RealmEntry>,
        }

        impl File {
            /// The sections as a plan whose routes are still to be put in.
            pub(crate) fn into_plan(self) -> Plan {
                Plan {
                    $( $section: self.$section, )+
                    routes: Vec::new(),
                    realms: self.realm,
                    routes_file: self.routes_file,
                    notes: Vec::new(),
                }
            }
        }

        impl Plan {
            /// Calls `visit` with each section: name, about, keys, values here, default values.
            pub(crate) fn each_section(&self, visit: &mut dyn FnMut(&Described)) {
                $( visit(&Described {
                    name: stringify!($section),
                    about: <$ty as Section>::ABOUT,
                    keys: <$ty as Section>::KEYS,
                    values: toml::Table::try_from(&self.$section).unwrap_or_default(),
                    defaults: toml::Table::try_from(<$ty>::default()).unwrap_or_default(),
                }); )+
            }
        }
    };
}

plan! {
    /// Where clients connect.
    server: Server,
    /// Where publishers and operators connect.
    control: Control,
    /// GRIP.
    grip: Grip,
    /// What one client may take.
    limits: Limits,
    /// What channels remember.
    log: Log,
    /// Calls to other places than the targets.
    outbound: Outbound,
    /// What is told to targets of the client.
    forward: Forward,
    /// What is written about the work.
    logging: Logging,
    /// Counters for Prometheus.
    metrics: Metrics,
    /// WebSockets.
    websocket: WebSocket,
    /// Pushpin's statistics.
    stats: Stats,
    /// The ZeroMQ doors.
    zmq: Zmq,
    /// Mongrel2 handlers.
    mongrel2: Mongrel2,
    /// Webhooks.
    webhooks: Webhooks,
    /// ZHTTP workers.
    workers: Workers,
    /// SockJS.
    sockjs: SockJs,
    /// What holds for routes that do not say otherwise.
    defaults: Defaults,
}

/// A section with its values.
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) about: &'static [&'static str],
    pub(crate) keys: &'static [Key],
    pub(crate) values: toml::Table,
    pub(crate) defaults: toml::Table,
}

impl Default for Plan {
    /// Clients on port 7999, the control API on 127.0.0.1:5561, and every request to the built-in
    /// demonstration.
    fn default() -> Self {
        let mut plan = File::default().into_plan();
        plan.routes = plan.demo_routes();
        plan
    }
}

impl Plan {
    /// The options of a route that sets none.
    pub(crate) fn base_options(&self) -> RouteOptions {
        base_options(&self.grip, &self.websocket, &self.defaults)
    }

    pub(crate) fn demo_routes(&self) -> Vec<Route> {
        let mut route = Route::new(Condition::default(), vec![Target::new(TargetAddress::Demo)]);
        route.options = self.base_options();
        vec![route]
    }

    /// The routes as a table. Problems were told when the plan was made.
    pub fn table(&self) -> Table {
        Table::new(self.routes.clone()).0
    }

    /// Takes in routes read from lines. A bad line is left out and noted, as Pushpin does.
    pub(crate) fn take_lines(&mut self, (routes, problems): (Vec<Route>, Vec<Problem>)) {
        self.notes.extend(problems.iter().map(ToString::to_string));
        let (table, problems) = Table::new(routes);
        self.notes.extend(problems.iter().map(ToString::to_string));
        self.routes = table.routes().iter().map(|route| Route::clone(route)).collect();
    }

    /// Takes in routes of the native file, where a bad one is a mistake.
    pub(crate) fn take_routes(&mut self, routes: Vec<Route>, mistakes: &mut Vec<Mistake>) {
        let (table, problems) = Table::new(routes);
        for problem in problems {
            if problem.severity == Severity::Skipped {
                mistakes.push(Mistake { place: problem.source_at.to_string(), text: problem.text });
            } else {
                self.notes.push(problem.to_string());
            }
        }
        self.routes = table.routes().iter().map(|route| Route::clone(route)).collect();
    }

    /// Judges what no single key can tell.
    pub(crate) fn judge(&self, place: &str, mistakes: &mut Vec<Mistake>) {
        let mut refuse = |text: &str| mistakes.push(Mistake { place: place.to_owned(), text: text.to_owned() });
        if self.server.listen.is_empty() {
            refuse("server.listen: no address for clients; name at least one, such as \"7999\"");
        }
        if self.server.listen.iter().any(|listen| listen.tls) && self.server.tls_certs.is_none() {
            refuse("server.listen: `?tls` needs certificates; set server.tls_certs to their directory");
        }
        if self.control.listen.iter().any(|listen| listen.tls) && self.control.cert.is_none() {
            refuse("control.listen: `?tls` needs control.cert and control.key");
        }
        if self.control.cert.is_some() != self.control.key.is_some() {
            refuse("control.cert and control.key: one needs the other; set both or none");
        }
        if self.log.bytes > self.log.total_bytes {
            refuse("log.bytes: one channel may not keep more than log.total_bytes; lower it or raise that");
        }
        for size in [
            self.limits.header_bytes,
            self.limits.queue_bytes,
            self.limits.queue_total_bytes,
            self.limits.undelivered_bytes,
            self.websocket.message_max,
            self.control.header_max,
        ] {
            if size.0 == 0 {
                refuse(
                    "limits.header_bytes, limits.queue_bytes, limits.queue_total_bytes, limits.undelivered_bytes, websocket.message_max, control.header_max: must not be 0",
                );
                break;
            }
        }
        let store = self.mongrel2.upload_store.as_deref().map(|path| path.as_os_str().as_encoded_bytes());
        if store.is_some_and(|name| !name.ends_with(b"XXXXXX")) {
            refuse("mongrel2.upload_store: the name must end in XXXXXX, which is replaced for each upload");
        }
        if self.webhooks.retry.is_empty() || self.webhooks.host_concurrency_max == 0 {
            refuse("webhooks.retry and webhooks.host_concurrency_max: there must be at least one try at a time");
        }
        for target in self.routes.iter().flat_map(|route| &route.targets) {
            if target.client_cert.is_some() != target.client_key.is_some() {
                refuse(&format!(
                    "target {}: client_cert and client_key need each other; set both or none",
                    target.address
                ));
            }
        }
        let named = self.routes.iter().filter_map(|route| route.options.realm.as_deref());
        realm::judge(&self.realms, named, place, mistakes);
    }
}
