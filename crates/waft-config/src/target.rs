//! Targets as the native file writes them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use waft_mongrel2::Protocol;
use waft_route::{Directory, Handler, Target, TargetAddress, pushpin};

use crate::value::OctalMode;

/// A target, written as in a routes file or as a table. Written by us as the former, where that can say it.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetEntry(pub Target);

/// A target as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    address: String,
    #[serde(default)]
    ssl: bool,
    #[serde(default)]
    untrusted: bool,
    #[serde(default)]
    trust_connect_host: bool,
    #[serde(default)]
    insecure: bool,
    host: Option<String>,
    #[serde(default)]
    subs: Vec<String>,
    #[serde(default)]
    over_http: bool,
    #[serde(default)]
    one_event: bool,
    ipc_file_mode: Option<OctalMode>,
    #[serde(default)]
    connect: bool,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

/// Files as a table.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct DirectoryTable {
    dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_type: Option<String>,
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    types: toml::Table,
    #[serde(default, skip_serializing_if = "is_off")]
    dotfiles: bool,
    #[serde(default, skip_serializing_if = "is_off")]
    links: bool,
}

/// Mongrel2 handlers as a table.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HandlerTable {
    handler: String,
    recv: String,
    ident: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    recv_ident: String,
    #[serde(default, skip_serializing_if = "is_json")]
    protocol: HandlerProtocol,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipc_file_mode: Option<OctalMode>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum HandlerProtocol {
    #[default]
    Json,
    TNetString,
}

fn is_off(flag: &bool) -> bool {
    !flag
}

fn is_json(protocol: &HandlerProtocol) -> bool {
    *protocol == HandlerProtocol::Json
}

impl Serialize for TargetEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.address {
            TargetAddress::Dir(directory) if **directory != Directory::new(directory.path.clone()) => {
                DirectoryTable::of(directory).serialize(serializer)
            }
            TargetAddress::Handler(handler) => HandlerTable::of(&self.0, handler).serialize(serializer),
            _ => serializer.collect_str(&pushpin::TargetText(&self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for TargetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        if let Some(text) = value.as_str() {
            return pushpin::parse_target(text)
                .map(Self)
                .map_err(|problem| D::Error::custom(format_args!("`{text}`: {}", problem.text)));
        }
        let Some(table) = value.as_table() else {
            return Err(D::Error::custom("a target is a text such as \"localhost:8000\" or a table with an address"));
        };
        let target = if table.contains_key("dir") {
            read::<DirectoryTable>(value).and_then(DirectoryTable::target)
        } else if table.contains_key("handler") {
            read::<HandlerTable>(value).and_then(HandlerTable::target)
        } else {
            read::<TargetTable>(value).and_then(TargetTable::target)
        };
        target.map(Self).map_err(D::Error::custom)
    }
}

fn read<T: DeserializeOwned>(value: toml::Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.message().to_owned())
}

impl TargetTable {
    fn target(self) -> Result<Target, String> {
        let address = TargetAddress::from_str(&self.address).map_err(|error| format!("`{}`: {error}", self.address))?;
        Ok(Target {
            address,
            ssl: self.ssl,
            untrusted: self.untrusted,
            trust_connect_host: self.trust_connect_host,
            insecure: self.insecure,
            host: self.host,
            subs: self.subs,
            over_http: self.over_http,
            one_event: self.one_event,
            ipc_file_mode: self.ipc_file_mode.map(|mode| mode.0),
            connect: self.connect,
            client_cert: self.client_cert,
            client_key: self.client_key,
        })
    }
}

impl DirectoryTable {
    fn of(directory: &Directory) -> Self {
        let base = Directory::new(directory.path.clone());
        let changed = |now: &String, base: &String| (now != base).then(|| now.clone());
        let types = directory.types.iter();
        Self {
            dir: directory.path.clone(),
            index: changed(&directory.index, &base.index),
            default_type: changed(&directory.default_type, &base.default_type),
            types: types.map(|(extension, kind)| (extension.clone(), kind.clone().into())).collect(),
            dotfiles: directory.dotfiles,
            links: directory.links,
        }
    }

    fn target(self) -> Result<Target, String> {
        let mut directory = Directory::new(self.dir);
        if let Some(index) = self.index {
            if index.contains('/') {
                return Err(format!("index `{index}`: name a file, without a directory"));
            }
            directory.index = index;
        }
        if let Some(kind) = self.default_type {
            directory.default_type = kind;
        }
        for (extension, kind) in self.types {
            let Some(kind) = kind.as_str() else { return Err(format!("types.{extension}: a text is expected")) };
            directory.types.push((extension, kind.to_owned()));
        }
        directory.dotfiles = self.dotfiles;
        directory.links = self.links;
        Ok(Target::new(TargetAddress::Dir(Arc::new(directory))))
    }
}

impl HandlerTable {
    fn of(target: &Target, handler: &Handler) -> Self {
        Self {
            handler: handler.send_spec.clone(),
            recv: handler.recv_spec.clone(),
            ident: handler.send_ident.clone(),
            recv_ident: handler.recv_ident.clone(),
            protocol: match handler.protocol {
                Protocol::Json => HandlerProtocol::Json,
                Protocol::TNetString => HandlerProtocol::TNetString,
            },
            subs: target.subs.clone(),
            ipc_file_mode: target.ipc_file_mode.map(OctalMode),
        }
    }

    fn target(self) -> Result<Target, String> {
        if self.ident.is_empty() || self.ident.contains(char::is_whitespace) {
            return Err(format!("ident `{}`: a word without blanks is expected", self.ident));
        }
        let handler = Handler {
            send_spec: self.handler,
            send_ident: self.ident,
            recv_spec: self.recv,
            recv_ident: self.recv_ident,
            protocol: match self.protocol {
                HandlerProtocol::Json => Protocol::Json,
                HandlerProtocol::TNetString => Protocol::TNetString,
            },
        };
        let mut target = Target::new(TargetAddress::Handler(Arc::new(handler)));
        target.subs = self.subs;
        target.ipc_file_mode = self.ipc_file_mode.map(|mode| mode.0);
        Ok(target)
    }
}
