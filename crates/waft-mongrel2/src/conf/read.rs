//! What the values of a configuration mean.

use std::collections::HashMap;

use super::lex::{ConfError, tokens};
use super::syntax::{Spot, Value, assignments};
use super::{Backend, Conf, Dir, Handler, Host, Module, Server};
use crate::control::text;
use crate::request::Protocol;

/// Reads a configuration as `m2sh` does.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(text: &str) -> Result<Conf, ConfError> {
    let assigned = assignments(&tokens(text)?)?;
    // A name may be used before it is assigned; of two assignments the last one counts.
    let known: HashMap<&str, &Spot> = assigned.iter().map(|(name, spot)| (name.as_str(), spot)).collect();
    let mut reader = Reader { known, conf: Conf::default() };
    let Some(servers) = reader.known.get("servers").copied() else {
        return Err(ConfError::new(
            1,
            "the list `servers` is missing; name the servers in it, as in `servers = [main]`",
        ));
    };
    for spot in reader.list(servers)? {
        let server = reader.server(spot)?;
        reader.conf.servers.push(server);
    }
    if let Some(spot) = reader.known.get("settings").copied() {
        for (key, value) in reader.map(spot)? {
            let entry = (reader.text(key)?, reader.scalar(value)?);
            reader.conf.settings.push(entry);
        }
    }
    if let Some(spot) = reader.known.get("mimetypes").copied() {
        for (key, value) in reader.map(spot)? {
            let entry = (reader.text(key)?, reader.text(value)?);
            reader.conf.mimetypes.push(entry);
        }
    }
    Ok(reader.conf)
}

/// Names that lead to names that are followed.
const NAMES_MAX: usize = 32;

struct Reader<'a> {
    known: HashMap<&'a str, &'a Spot>,
    conf: Conf,
}

/// A call with its parameters.
struct Call<'a> {
    class: &'a str,
    line: u32,
    parameters: HashMap<&'a str, &'a Spot>,
}

impl<'a> Reader<'a> {
    /// The value that a name stands for.
    fn resolve(&self, spot: &'a Spot) -> Result<&'a Spot, ConfError> {
        let mut found = spot;
        for _ in 0..NAMES_MAX {
            let Value::Name(name) = &found.value else { return Ok(found) };
            found =
                self.known.get(name.as_str()).copied().ok_or_else(|| {
                    ConfError::new(found.line, format!("`{name}` is assigned nowhere; is it misspelt?"))
                })?;
        }
        Err(ConfError::new(spot.line, "the name stands for itself"))
    }

    fn list(&self, spot: &'a Spot) -> Result<&'a [Spot], ConfError> {
        match &self.resolve(spot)?.value {
            Value::List(items) => Ok(items),
            _ => Err(ConfError::new(spot.line, "a list in [ ] is expected")),
        }
    }

    fn map(&self, spot: &'a Spot) -> Result<Vec<(&'a Spot, &'a Spot)>, ConfError> {
        match &self.resolve(spot)?.value {
            Value::Map(entries) => Ok(entries.iter().map(|(key, value)| (key, value)).collect()),
            _ => Err(ConfError::new(spot.line, "a map in { } is expected")),
        }
    }

    fn text(&self, spot: &'a Spot) -> Result<String, ConfError> {
        match &self.resolve(spot)?.value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(ConfError::new(spot.line, "a text in quotation marks is expected")),
        }
    }

    /// A text, or a number as text.
    fn scalar(&self, spot: &'a Spot) -> Result<String, ConfError> {
        match &self.resolve(spot)?.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(ConfError::new(spot.line, "a text or a number is expected")),
        }
    }

    fn number<T: TryFrom<i64>>(&self, spot: &'a Spot) -> Result<T, ConfError> {
        let number = match &self.resolve(spot)?.value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        let fits = number.and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| ConfError::new(spot.line, "a number that fits is expected"))
    }

    fn call(&self, spot: &'a Spot) -> Result<Call<'a>, ConfError> {
        let found = self.resolve(spot)?;
        match &found.value {
            Value::Call { class, parameters } => Ok(Call {
                class,
                line: found.line,
                parameters: parameters.iter().map(|(name, spot)| (name.as_str(), spot)).collect(),
            }),
            _ => Err(ConfError::new(spot.line, "a call such as Handler(...) is expected")),
        }
    }

    fn call_of(&self, spot: &'a Spot, class: &str) -> Result<Call<'a>, ConfError> {
        let call = self.call(spot)?;
        if call.class == class {
            return Ok(call);
        }
        Err(ConfError::new(spot.line, format!("{class}(...) is expected, not {}(...)", call.class)))
    }

    fn server(&mut self, spot: &'a Spot) -> Result<Server, ConfError> {
        let call = self.call_of(spot, "Server")?;
        let mut server = Server {
            uuid: self.needed(&call, "uuid")?,
            name: self.needed(&call, "name")?,
            port: self.number(call.get("port")?)?,
            access_log: self.needed(&call, "access_log")?,
            error_log: self.needed(&call, "error_log")?,
            pid_file: self.needed(&call, "pid_file")?,
            default_host: self.needed(&call, "default_host")?,
            chroot: self.or(&call, "chroot", "")?,
            bind_addr: self.or(&call, "bind_addr", "0.0.0.0")?,
            control_port: self.or(&call, "control_port", "")?,
            ..Server::default()
        };
        if let Some(spot) = call.parameters.get("use_ssl") {
            server.use_ssl = self.number::<i64>(spot)? != 0;
        }
        for spot in self.list(call.get("hosts")?)? {
            server.hosts.push(self.host(spot)?);
        }
        if let Some(spot) = call.parameters.get("filters") {
            server.filters = self.modules(spot, "Filter")?;
        }
        if let Some(spot) = call.parameters.get("xrequests") {
            server.xrequests = self.modules(spot, "Xrequest")?;
        }
        let known = [
            "uuid",
            "name",
            "port",
            "access_log",
            "error_log",
            "pid_file",
            "default_host",
            "chroot",
            "bind_addr",
            "control_port",
            "use_ssl",
            "hosts",
            "filters",
            "xrequests",
        ];
        self.note_others(&call, &known);
        Ok(server)
    }

    fn host(&mut self, spot: &'a Spot) -> Result<Host, ConfError> {
        let call = self.call_of(spot, "Host")?;
        let name = self.needed(&call, "name")?;
        let mut host = Host { matching: self.or(&call, "matching", &name)?, name, routes: Vec::new() };
        for (path, target) in self.map(call.get("routes")?)? {
            let route = (self.text(path)?, self.backend(target)?);
            host.routes.push(route);
        }
        self.note_others(&call, &["name", "matching", "routes"]);
        Ok(host)
    }

    fn backend(&mut self, spot: &'a Spot) -> Result<Backend, ConfError> {
        let call = self.call(spot)?;
        match call.class {
            "Handler" => {
                let protocol = match self.or(&call, "protocol", "json")?.as_str() {
                    "tnetstring" => Protocol::TNetString,
                    _ => Protocol::Json,
                };
                let handler = Handler {
                    send_spec: self.needed(&call, "send_spec")?,
                    send_ident: self.needed(&call, "send_ident")?,
                    recv_spec: self.needed(&call, "recv_spec")?,
                    recv_ident: self.needed(&call, "recv_ident")?,
                    raw_payload: match call.parameters.get("raw_payload") {
                        Some(spot) => self.number::<i64>(spot)? != 0,
                        None => false,
                    },
                    protocol,
                };
                let known = ["send_spec", "send_ident", "recv_spec", "recv_ident", "raw_payload", "protocol"];
                self.note_others(&call, &known);
                Ok(Backend::Handler(handler))
            }
            "Proxy" => {
                let (addr, port) = (self.needed(&call, "addr")?, self.number(call.get("port")?)?);
                self.note_others(&call, &["addr", "port"]);
                Ok(Backend::Proxy { addr, port })
            }
            "Dir" => {
                let dir = Dir {
                    base: self.needed(&call, "base")?,
                    index_file: self.needed(&call, "index_file")?,
                    default_ctype: self.needed(&call, "default_ctype")?,
                    cache_ttl: match call.parameters.get("cache_ttl") {
                        Some(spot) => self.number(spot)?,
                        None => 0,
                    },
                };
                self.note_others(&call, &["base", "index_file", "default_ctype", "cache_ttl"]);
                Ok(Backend::Dir(dir))
            }
            other => Err(ConfError::new(
                call.line,
                format!("a route leads to Handler(...), Proxy(...) or Dir(...), not to {other}(...)"),
            )),
        }
    }

    fn modules(&mut self, spot: &'a Spot, class: &str) -> Result<Vec<Module>, ConfError> {
        let mut modules = Vec::new();
        for spot in self.list(spot)? {
            let call = self.call_of(spot, class)?;
            let settings = match call.parameters.get("settings") {
                Some(spot) => self.tnetstring(spot)?,
                None => "0:}".to_owned(),
            };
            modules.push(Module { name: self.needed(&call, "name")?, settings });
            self.note_others(&call, &["name", "settings"]);
        }
        Ok(modules)
    }

    fn tnetstring(&self, spot: &'a Spot) -> Result<String, ConfError> {
        let mut out = bytes::BytesMut::new();
        self.tree(spot, 0)?.encode(&mut out);
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// A value as a tree. Names may bring a value into itself, so that depth is counted again.
    fn tree(&self, spot: &'a Spot, depth: usize) -> Result<waft_zhttp::Value, ConfError> {
        if depth > NAMES_MAX {
            return Err(ConfError::new(spot.line, "the settings are nested too deeply"));
        }
        Ok(match &self.resolve(spot)?.value {
            Value::Text(written) => text(written),
            Value::Number(number) => waft_zhttp::Value::Integer(*number),
            Value::List(items) => {
                let items: Result<_, _> = items.iter().map(|item| self.tree(item, depth + 1)).collect();
                waft_zhttp::Value::List(items?)
            }
            Value::Map(entries) => {
                let entry = |(key, value): &'a (Spot, Spot)| Ok((self.text(key)?.into(), self.tree(value, depth + 1)?));
                waft_zhttp::Value::Map(entries.iter().map(entry).collect::<Result<_, ConfError>>()?)
            }
            Value::Call { .. } | Value::Name(_) => {
                return Err(ConfError::new(spot.line, "settings of a module are texts, numbers, lists and maps"));
            }
        })
    }

    fn needed(&self, call: &Call<'a>, name: &str) -> Result<String, ConfError> {
        self.text(call.get(name)?)
    }

    fn or(&self, call: &Call<'a>, name: &str, default: &str) -> Result<String, ConfError> {
        call.parameters.get(name).map_or_else(|| Ok(default.to_owned()), |spot| self.text(spot))
    }

    fn note_others(&mut self, call: &Call<'_>, known: &[&str]) {
        let mut others: Vec<_> = call.parameters.keys().filter(|name| !known.contains(name)).collect();
        others.sort_unstable();
        for name in others {
            let note =
                format!("line {}: {}: the parameter `{name}` is unknown and has no effect", call.line, call.class);
            if !self.conf.notes.contains(&note) {
                self.conf.notes.push(note);
            }
        }
    }
}

impl<'a> Call<'a> {
    fn get(&self, name: &str) -> Result<&'a Spot, ConfError> {
        self.parameters
            .get(name)
            .copied()
            .ok_or_else(|| ConfError::new(self.line, format!("{}(...) needs the parameter `{name}`", self.class)))
    }
}
