//! A configuration of Mongrel2 as a plan.
//!
//! It comes as [`Conf`], read from the text that `m2sh` loads or from the database that it writes. Every setting of
//! Mongrel2 has a meaning here or is noted in the plan with the reason why it has none.

mod routes;
mod setting;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use waft_mongrel2::conf::{Conf, Server};
use waft_net::Endpoint;

use crate::mistake::{Mistake, Mistakes};
use crate::plan::{File, Plan};
use crate::reference::to_toml;
use crate::value::Listen;

/// The plan of the server with this uuid. Without one, the configuration must hold one server only.
///
/// # Errors
/// No such server, or a value that cannot be understood.
pub fn plan(conf: &Conf, uuid: Option<&str>, name: &str) -> Result<Plan, Mistakes> {
    let server = choose(conf, uuid).map_err(|text| Mistakes::one(name, text))?;
    let mut reading = Reading::new(conf, server, name);
    reading.server();
    for (key, value) in &conf.settings {
        if let Err(expected) = reading.setting(key, value) {
            reading.refuse(format!("setting {key}: `{value}` is not {expected}"));
        }
    }
    reading.routes();
    let Reading { mut plan, mut mistakes, .. } = reading;
    plan.notes.splice(0..0, conf.notes.iter().cloned());
    plan.judge(name, &mut mistakes);
    if mistakes.is_empty() { Ok(plan) } else { Err(Mistakes(mistakes)) }
}

/// The text of a `waft.toml` that means the same as [`plan`]. What has no meaning here stands in comments at its head.
///
/// # Errors
/// As [`plan`].
pub fn import(conf: &Conf, uuid: Option<&str>, name: &str) -> Result<String, Mistakes> {
    let plan = plan(conf, uuid, name)?;
    let notes: String = plan.notes.iter().map(|note| format!("# {}\n", note.replace(['\r', '\n'], " "))).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    Ok(format!("{notes}{gap}{}", to_toml(&plan)))
}

/// The server that is meant.
///
/// # Errors
/// A text that says which there are.
pub fn choose<'a>(conf: &'a Conf, uuid: Option<&str>) -> Result<&'a Server, String> {
    let known = || conf.servers.iter().map(|server| server.uuid.as_str()).collect::<Vec<_>>().join(", ");
    match (uuid, conf.servers.as_slice()) {
        (Some(uuid), servers) => servers
            .iter()
            .find(|server| server.uuid == uuid)
            .ok_or_else(|| format!("there is no server with the uuid {uuid}; there are: {}", known())),
        (None, [only]) => Ok(only),
        (None, []) => Err("there is no server in it".to_owned()),
        (None, _) => Err(format!("there are several servers; name the uuid of one: {}", known())),
    }
}

/// A path that a server writes, below its `chroot`.
pub fn below_chroot(server: &Server, path: &str) -> PathBuf {
    let root = if server.chroot.is_empty() { Path::new(".") } else { Path::new(&server.chroot) };
    root.join(path.trim_start_matches('/'))
}

/// What has been read so far.
struct Reading<'a> {
    conf: &'a Conf,
    server: &'a Server,
    name: &'a str,
    plan: Plan,
    mistakes: Vec<Mistake>,
}

impl<'a> Reading<'a> {
    fn new(conf: &'a Conf, server: &'a Server, name: &'a str) -> Self {
        let mut plan = File::default().into_plan();
        // What differs from waft's own defaults: publishers come by the native configuration, and nobody expects signatures.
        plan.control.listen.clear();
        plan.grip.sig_key.clear();
        plan.mongrel2.control = Some("ipc://run/control".to_owned());
        Self { conf, server, name, plan, mistakes: Vec::new() }
    }

    fn refuse(&mut self, text: String) {
        self.mistakes.push(Mistake { place: self.name.to_owned(), text });
    }

    fn note(&mut self, what: &str, why: &str) {
        let note = format!("{what} has no effect: {why}");
        if !self.plan.notes.contains(&note) {
            self.plan.notes.push(note);
        }
    }

    fn server(&mut self) {
        let server = self.server;
        match server.bind_addr.parse::<IpAddr>() {
            Ok(address) if server.port != 0 => {
                let endpoint = Endpoint::Tcp(SocketAddr::new(address, server.port));
                self.plan.server.listen = vec![Listen {
                    endpoint,
                    tls: server.use_ssl,
                    client_ca: None,
                    client_optional: false,
                    user: None,
                    group: None,
                    route: None,
                }];
            }
            _ => self.refuse(format!(
                "server {}: `{}` and port {} are no address to listen on",
                server.uuid, server.bind_addr, server.port
            )),
        }
        let mongrel2 = &mut self.plan.mongrel2;
        mongrel2.uuid.clone_from(&server.uuid);
        mongrel2.default_host.clone_from(&server.default_host);
        let below = |path: &str| (!path.is_empty()).then(|| below_chroot(server, path));
        mongrel2.access_log = below(&server.access_log);
        mongrel2.pid_file = below(&server.pid_file);
        if !server.control_port.is_empty() {
            mongrel2.control = Some(server.control_port.clone());
        }
        self.plan.logging.file = below(&server.error_log);
        if !matches!(server.chroot.as_str(), "" | "." | "./" | "/") {
            self.note(
                &format!("chroot {}", server.chroot),
                "the process changes neither its root nor its user; the paths of the configuration begin there all the same, those of uploads do not",
            );
        }
        for filter in &server.filters {
            self.note(&format!("filter {}", filter.name), "modules of Mongrel2 cannot be loaded");
        }
        for module in &server.xrequests {
            if module.name.contains("sendfile") {
                self.note(
                    &format!("xrequest {}", module.name),
                    "the command sendfile is built in; name the directories it may read in mongrel2.sendfile of a native configuration",
                );
            } else {
                self.note(&format!("xrequest {}", module.name), "modules of Mongrel2 cannot be loaded");
            }
        }
    }
}

#[cfg(test)]
mod tests;
