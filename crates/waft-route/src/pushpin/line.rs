//! A route written as a line.

use std::fmt;

use crate::condition::Proto;
use crate::route::{JsonP, JsonPMode, Route, RouteOptions};
use crate::target::Target;

/// A route to be written as a line of a routes file.
///
/// Reading the line gives the same route, unless the route has what the grammar cannot say: line
/// ends within a value, conditions on client certificates, methods, headers and query, and waft's own options.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(pub &'a Route);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.0;
        let condition = &route.condition;
        write_text(f, &condition.host.to_string(), true)?;
        if route.explicit_id {
            param(f, "id", &route.id)?;
        }
        optional(f, "proto", condition.proto.map(Proto::as_str))?;
        optional(f, "ssl", condition.ssl.map(|ssl| if ssl { "yes" } else { "no" }))?;
        optional(f, "path_beg", condition.path_beg.as_deref())?;
        write_options(f, &route.options)?;
        route.targets.iter().try_for_each(|target| {
            f.write_str(" ")?;
            write_target(f, target)
        })
    }
}

/// A target to be written as in a routes file.
#[derive(Clone, Copy, Debug)]
pub struct TargetText<'a>(pub &'a Target);

impl fmt::Display for TargetText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_target(f, self.0)
    }
}

fn write_options(f: &mut fmt::Formatter<'_>, options: &RouteOptions) -> fmt::Result {
    let defaults = RouteOptions::default();
    if options.sig_iss != defaults.sig_iss {
        param(f, "sig_iss", &options.sig_iss)?;
    }
    optional(f, "sig_key", options.sig_key.as_deref())?;
    optional(f, "prefix", Some(options.prefix.as_str()).filter(|prefix| !prefix.is_empty()))?;
    optional(f, "as_host", options.as_host.as_deref())?;
    if options.path_rem != 0 {
        param(f, "path_rem", &options.path_rem.to_string())?;
    }
    optional(f, "replace_beg", options.replace_beg.as_deref())?;
    for (name, value) in &options.headers {
        param(f, "header", &format!("{name}:{value}"))?;
    }
    write_jsonp(f, &options.jsonp)?;
    if let Some(sockjs) = &options.sockjs {
        param(f, "sockjs", &sockjs.path)?;
        optional(f, "sockjs_as_path", sockjs.as_path.as_deref())?;
    }
    optional(f, "log_level", options.log_level.map(|level| level.to_string()).as_deref())?;
    flag(f, "orig_headers", options.orig_headers)?;
    flag(f, "debug", options.debug)?;
    flag(f, "aco", options.aco)?;
    flag(f, "session", options.session)?;
    flag(f, "no_grip", options.no_grip)
}

fn write_jsonp(f: &mut fmt::Formatter<'_>, jsonp: &JsonP) -> fmt::Result {
    if jsonp.mode == JsonPMode::Basic {
        param(f, "jsonp_mode", "basic")?;
    }
    let callback = Some(jsonp.callback_param.as_str()).filter(|name| *name != JsonP::default().callback_param);
    optional(f, "jsonp_cb", callback)?;
    optional(f, "jsonp_body", jsonp.body_param.as_deref())?;
    optional(f, "jsonp_defcb", jsonp.default_callback.as_deref())?;
    optional(f, "jsonp_defmethod", jsonp.default_method.as_deref())
}

fn write_target(f: &mut fmt::Formatter<'_>, target: &Target) -> fmt::Result {
    write_text(f, &target.address.to_string(), true)?;
    flag(f, "ssl", target.ssl)?;
    flag(f, "untrusted", target.untrusted)?;
    flag(f, "trust_connect_host", target.trust_connect_host)?;
    flag(f, "insecure", target.insecure)?;
    optional(f, "host", target.host.as_deref())?;
    for channel in &target.subs {
        param(f, "sub", channel)?;
    }
    flag(f, "over_http", target.over_http)?;
    flag(f, "one_event", target.one_event)?;
    flag(f, "connect", target.connect)?;
    optional(f, "ipc_file_mode", target.ipc_file_mode.map(|mode| format!("{mode:o}")).as_deref())?;
    for (name, path) in [("client_cert", &target.client_cert), ("client_key", &target.client_key)] {
        optional(f, name, path.as_ref().map(|path| path.to_string_lossy()).as_deref())?;
    }
    Ok(())
}

fn flag(f: &mut fmt::Formatter<'_>, name: &str, is_set: bool) -> fmt::Result {
    if is_set { write!(f, ",{name}") } else { Ok(()) }
}

fn optional(f: &mut fmt::Formatter<'_>, name: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| param(f, name, value))
}

fn param(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    write!(f, ",{name}=")?;
    write_text(f, value, false)
}

/// Writes `text`, quoted if it would be taken for something else. In a first item that goes for `=` too.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str, is_first: bool) -> fmt::Result {
    let needs_quotes = text.contains([' ', ',', '#', '"', '\r']) || (is_first && text.contains('='));
    if !needs_quotes {
        return f.write_str(text);
    }
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
