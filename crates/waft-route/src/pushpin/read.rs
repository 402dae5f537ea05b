//! Sections into a route.

use crate::condition::{Condition, HostPattern, Proto};
use crate::problem::Source;
use crate::route::{JsonPMode, Route, RouteOptions, SockJs};
use crate::target::{Target, TargetAddressError};

use super::lex::Section;

/// Why a line is no route. The texts are Pushpin's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("{0} must not be empty")]
    Empty(&'static str),
    #[error("header must use format 'name:value'")]
    HeaderFormat,
    #[error("must specify condition and at least one target")]
    Incomplete,
    #[error("jsonp_mode must be set to 'basic' or 'extended'")]
    JsonPMode,
    #[error("condition has no domain or id")]
    NoDomain,
    #[error("{0} must be a number")]
    NotANumber(&'static str),
    #[error("ipc_file_mode must be an octal number up to 777")]
    NotOctal,
    #[error("proto must be set to 'http' or 'ws'")]
    Proto,
    #[error("ssl must be set to 'yes' or 'no'")]
    Ssl,
    #[error(transparent)]
    Target(#[from] TargetAddressError),
}

/// The route of a line; what has no effect is put into `notices`.
pub(super) fn route(
    sections: &[Section],
    source: &Source,
    defaults: &RouteOptions,
    notices: &mut Vec<String>,
) -> Result<Route, LineError> {
    let [first, rest @ ..] = sections else { return Err(LineError::Incomplete) };
    if rest.is_empty() {
        return Err(LineError::Incomplete);
    }
    let mut reading = Reading {
        condition: Condition { host: HostPattern::parse(&first.value), ..Condition::default() },
        options: defaults.clone(),
        id: None,
        sockjs_as_path: None,
    };
    for (name, value) in &first.params {
        if !reading.condition_param(name, value)? && !reading.option_param(name, value)? {
            notices.push(format!("unknown condition param `{name}` has no effect"));
        }
    }
    if reading.condition.host == HostPattern::None && reading.id.is_none() {
        return Err(LineError::NoDomain);
    }
    match (&mut reading.options.sockjs, reading.sockjs_as_path) {
        (Some(sockjs), as_path) => sockjs.as_path = as_path,
        (None, Some(_)) => notices.push("sockjs_as_path has no effect without sockjs".to_owned()),
        (None, None) => {}
    }
    let mut targets = Vec::with_capacity(rest.len());
    for section in rest {
        targets.push(target(section, notices)?);
    }
    let explicit_id = reading.id.is_some();
    let id = reading.id.unwrap_or_else(|| reading.condition.automatic_id()).into();
    Ok(Route {
        id,
        explicit_id,
        condition: reading.condition,
        options: reading.options,
        targets,
        source: source.clone(),
    })
}

/// What the parameters of a condition have said so far.
struct Reading {
    condition: Condition,
    options: RouteOptions,
    id: Option<String>,
    sockjs_as_path: Option<String>,
}

impl Reading {
    /// Takes in a parameter that narrows the condition. Whether it is one.
    fn condition_param(&mut self, name: &str, value: &str) -> Result<bool, LineError> {
        match name {
            "id" => self.id = Some(filled("id", value)?),
            "path_beg" => self.condition.path_beg = Some(filled("path_beg", value)?),
            "proto" => {
                self.condition.proto = Some(match value {
                    "http" => Proto::Http,
                    "ws" => Proto::Ws,
                    _ => return Err(LineError::Proto),
                });
            }
            "ssl" => {
                self.condition.ssl = Some(match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(LineError::Ssl),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes in a parameter that says how the route treats its requests. Whether it is one.
    fn option_param(&mut self, name: &str, value: &str) -> Result<bool, LineError> {
        let options = &mut self.options;
        match name {
            "aco" => options.aco = true,
            "as_host" => options.as_host = Some(filled("as_host", value)?),
            "debug" => options.debug = true,
            "header" => {
                let (name, value) = value.split_once(':').ok_or(LineError::HeaderFormat)?;
                let name = name.trim();
                if name.is_empty() {
                    return Err(LineError::HeaderFormat);
                }
                options.headers.push((name.to_owned(), value.trim().to_owned()));
            }
            "jsonp_body" => options.jsonp.body_param = Some(filled("jsonp_body", value)?),
            "jsonp_cb" => options.jsonp.callback_param = filled("jsonp_cb", value)?,
            "jsonp_defcb" => options.jsonp.default_callback = Some(filled("jsonp_defcb", value)?),
            "jsonp_defmethod" => options.jsonp.default_method = Some(filled("jsonp_defmethod", value)?),
            "jsonp_mode" => {
                options.jsonp.mode = match value {
                    "basic" => JsonPMode::Basic,
                    "extended" => JsonPMode::Extended,
                    _ => return Err(LineError::JsonPMode),
                };
            }
            "log_level" => {
                options.log_level = Some(value.parse().map_err(|_not_a_number| LineError::NotANumber("log_level"))?);
            }
            "no_grip" => options.no_grip = true,
            "orig_headers" => options.orig_headers = true,
            "path_rem" => {
                options.path_rem = value.parse().map_err(|_not_a_number| LineError::NotANumber("path_rem"))?;
            }
            "prefix" => options.prefix = value.to_owned(),
            "replace_beg" => options.replace_beg = Some(filled("replace_beg", value)?),
            "session" => options.session = true,
            "sig_iss" => options.sig_iss = value.to_owned(),
            "sig_key" => options.sig_key = Some(value.to_owned()).filter(|key| !key.is_empty()),
            "sockjs" => options.sockjs = Some(SockJs { path: filled("sockjs", value)?, as_path: None }),
            "sockjs_as_path" => self.sockjs_as_path = Some(filled("sockjs_as_path", value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub(super) fn target(section: &Section, notices: &mut Vec<String>) -> Result<Target, LineError> {
    let mut target = Target::new(section.value.parse()?);
    for (name, value) in &section.params {
        match name.as_str() {
            "client_cert" => target.client_cert = Some(filled("client_cert", value)?.into()),
            "client_key" => target.client_key = Some(filled("client_key", value)?.into()),
            "connect" => target.connect = true,
            "host" => target.host = Some(filled("host", value)?),
            "insecure" => target.insecure = true,
            "ipc_file_mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                target.ipc_file_mode = Some(mode.ok_or(LineError::NotOctal)?);
            }
            "one_event" => target.one_event = true,
            "over_http" => target.over_http = true,
            "ssl" => target.ssl = true,
            "sub" => target.subs.push(filled("sub", value)?),
            "trust_connect_host" => target.trust_connect_host = true,
            "untrusted" => target.untrusted = true,
            _ => notices.push(format!("unknown target param `{name}` has no effect")),
        }
    }
    Ok(target)
}

/// `value`, which `name` may not leave empty.
fn filled(name: &'static str, value: &str) -> Result<String, LineError> {
    if value.is_empty() { Err(LineError::Empty(name)) } else { Ok(value.to_owned()) }
}
