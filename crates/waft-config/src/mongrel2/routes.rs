//! Hosts and their routes.

use std::path::Path;
use std::sync::Arc;

use waft_mongrel2::conf::{Backend, Dir, Host};
use waft_mongrel2::{HostRule, PathRule};
use waft_route::{Condition, Directory, Handler, HostPattern, Route, Source, Target, TargetAddress};

use super::{Reading, below_chroot};

impl Reading<'_> {
    /// Puts the routes of all hosts into the plan. Those of the default host stand there for every other host, too.
    pub(super) fn routes(&mut self) {
        let server = self.server;
        let mut routes = Vec::new();
        for host in &server.hosts {
            let matching = match HostRule::parse(&host.matching) {
                Ok(HostRule::Domain(domain)) if domain.is_empty() => HostPattern::Any,
                Ok(HostRule::Domain(domain)) => HostPattern::Domain(domain),
                Ok(HostRule::Pattern { .. }) => HostPattern::Matching(host.matching.clone()),
                Err(error) => {
                    self.refuse(format!("host {}: matching `{}`: {error}", host.name, host.matching));
                    continue;
                }
            };
            let mut patterns = vec![matching];
            if host.name == server.default_host && !patterns.contains(&HostPattern::Any) {
                patterns.push(HostPattern::Any);
            }
            for pattern in patterns {
                self.host_routes(host, &pattern, &mut routes);
            }
        }
        if server.hosts.iter().all(|host| host.name != server.default_host) {
            self.note(&format!("default_host {}", server.default_host), "no host has this name");
        }
        let mut mistakes = std::mem::take(&mut self.mistakes);
        self.plan.take_routes(routes, &mut mistakes);
        self.mistakes = mistakes;
    }

    fn host_routes(&mut self, host: &Host, pattern: &HostPattern, routes: &mut Vec<Route>) {
        for (path, backend) in &host.routes {
            if path.starts_with(['@', '<']) {
                self.note(&format!("route {path} of host {}", host.name), "JSON and XML sockets are not served");
                continue;
            }
            let rule = match PathRule::parse(path) {
                Ok(rule) => rule,
                Err(error) => {
                    self.refuse(format!("host {}: route {path}: {error}", host.name));
                    continue;
                }
            };
            let condition = Condition {
                host: pattern.clone(),
                path_beg: Some(rule.prefix).filter(|prefix| !prefix.is_empty()),
                path_pattern: rule.pattern,
                ..Condition::default()
            };
            let Some(address) = self.address(host, path, backend) else { continue };
            let mut route = Route::new(condition, vec![Target::new(address)]);
            route.options = self.plan.base_options();
            route.source = Source { file: format!("host {}: route {path}", host.name).into(), line: 0 };
            routes.push(route);
        }
    }

    fn address(&mut self, host: &Host, path: &str, backend: &Backend) -> Option<TargetAddress> {
        match backend {
            Backend::Dir(dir) => Some(TargetAddress::Dir(Arc::new(self.directory(dir)))),
            Backend::Handler(handler) => {
                if handler.raw_payload {
                    self.note("raw_payload", "it is about JSON and XML sockets, which are not served");
                }
                if handler.send_ident.is_empty() || handler.send_ident.contains(char::is_whitespace) {
                    self.refuse(format!(
                        "host {}: route {path}: send_ident `{}` is not a word without blanks",
                        host.name, handler.send_ident
                    ));
                    return None;
                }
                Some(TargetAddress::Handler(Arc::new(Handler {
                    send_spec: handler.send_spec.clone(),
                    send_ident: handler.send_ident.clone(),
                    recv_spec: handler.recv_spec.clone(),
                    recv_ident: handler.recv_ident.clone(),
                    protocol: handler.protocol,
                })))
            }
            Backend::Proxy { addr, port } if *port != 0 && !addr.is_empty() => {
                Some(TargetAddress::Http { host: addr.clone(), port: *port })
            }
            Backend::Proxy { addr, port } => {
                self.refuse(format!("host {}: route {path}: `{addr}` port {port} is no address", host.name));
                None
            }
        }
    }

    fn directory(&mut self, dir: &Dir) -> Directory {
        if dir.cache_ttl != 0 {
            self.note("cache_ttl", "what is known of a file is asked anew for each request");
        }
        Directory {
            path: below_chroot(self.server, &dir.base),
            index: Path::new(&dir.index_file)
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into()),
            default_type: dir.default_ctype.clone(),
            types: self
                .conf
                .mimetypes
                .iter()
                .map(|(extension, kind)| (extension.trim_start_matches('.').to_owned(), kind.clone()))
                .collect(),
            // Mongrel2 serves everything below the directory.
            dotfiles: true,
            links: true,
        }
    }
}
