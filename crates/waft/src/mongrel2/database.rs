//! The SQLite database that Mongrel2 is configured by. Other programs write it too, so it is read as it is: columns that
//! are missing have their defaults, others are passed over.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params};
use waft_mongrel2::Protocol;
use waft_mongrel2::conf::{Backend, Conf, Dir, Handler, Host, Module, Server};

/// Reads a whole database.
pub(crate) fn read(path: &Path) -> Result<Conf> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)
        .with_context(|| format!("the database {} cannot be opened", path.display()))?;
    let read = || -> Result<Conf> {
        let mut conf = Conf::default();
        let tables = Tables::read(&database)?;
        for row in rows(&database, "server")? {
            conf.servers.push(tables.server(&row, &mut conf.notes)?);
        }
        conf.settings =
            rows(&database, "setting")?.iter().map(|row| (row.text("key", ""), row.text("value", ""))).collect();
        conf.mimetypes = rows(&database, "mimetype")?
            .iter()
            .map(|row| (row.text("extension", ""), row.text("mimetype", "")))
            .collect();
        Ok(conf)
    };
    read().with_context(|| format!("the database {} cannot be used", path.display()))
}

/// A row by the names of its columns.
struct Row(HashMap<String, Value>);

impl Row {
    fn text(&self, column: &str, default: &str) -> String {
        match self.0.get(column) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Real(number)) => number.to_string(),
            Some(Value::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Value::Null) | None => default.to_owned(),
        }
    }

    fn number(&self, column: &str) -> i64 {
        match self.0.get(column) {
            Some(Value::Integer(number)) => *number,
            Some(Value::Text(text)) => text.trim().parse().unwrap_or(0),
            Some(Value::Real(_) | Value::Blob(_) | Value::Null) | None => 0,
        }
    }

    fn small<T: TryFrom<i64> + Default>(&self, column: &str) -> T {
        T::try_from(self.number(column)).unwrap_or_default()
    }
}

/// All rows of a table in the order of their ids; none if there is no such table.
fn rows(database: &Connection, table: &str) -> Result<Vec<Row>> {
    let exists = database
        .prepare("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1")?
        .exists(params![table])?;
    if !exists {
        return Ok(Vec::new());
    }
    // The name is one of this file's.
    let mut statement = database.prepare(&format!("SELECT * FROM {table} ORDER BY 1"))?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_ascii_lowercase).collect();
    let mut found = statement.query([])?;
    let mut out = Vec::new();
    while let Some(row) = found.next()? {
        let mut values = HashMap::with_capacity(names.len());
        for (number, name) in names.iter().enumerate() {
            values.insert(name.clone(), row.get::<_, Value>(number)?);
        }
        out.push(Row(values));
    }
    Ok(out)
}

/// The tables that servers are put together from.
struct Tables {
    hosts: Vec<Row>,
    routes: Vec<Row>,
    handlers: HashMap<i64, Row>,
    proxies: HashMap<i64, Row>,
    directories: HashMap<i64, Row>,
    filters: Vec<Row>,
    xrequests: Vec<Row>,
}

impl Tables {
    fn read(database: &Connection) -> Result<Self> {
        let by_id = |table| -> Result<HashMap<i64, Row>> {
            Ok(rows(database, table)?.into_iter().map(|row| (row.number("id"), row)).collect())
        };
        Ok(Self {
            hosts: rows(database, "host")?,
            routes: rows(database, "route")?,
            handlers: by_id("handler")?,
            proxies: by_id("proxy")?,
            directories: by_id("directory")?,
            filters: rows(database, "filter")?,
            xrequests: rows(database, "xrequest")?,
        })
    }

    fn server(&self, row: &Row, notes: &mut Vec<String>) -> Result<Server> {
        let id = row.number("id");
        let mut server = Server {
            uuid: row.text("uuid", ""),
            name: row.text("name", ""),
            bind_addr: row.text("bind_addr", "0.0.0.0"),
            port: row.small("port"),
            use_ssl: row.number("use_ssl") != 0,
            chroot: row.text("chroot", "/var/www"),
            access_log: row.text("access_log", ""),
            error_log: row.text("error_log", ""),
            pid_file: row.text("pid_file", ""),
            control_port: row.text("control_port", ""),
            default_host: row.text("default_host", ""),
            hosts: Vec::new(),
            filters: Self::modules(&self.filters, id),
            xrequests: Self::modules(&self.xrequests, id),
        };
        for row in self.hosts.iter().filter(|row| row.number("server_id") == id) {
            let name = row.text("name", "");
            let mut host = Host { matching: row.text("matching", &name), name, routes: Vec::new() };
            let own = row.number("id");
            for row in self.routes.iter().filter(|row| row.number("host_id") == own) {
                let path = row.text("path", "");
                match self.backend(row)? {
                    Some(backend) => host.routes.push((path, backend)),
                    None => {
                        notes.push(format!("route {path} of host {} has no effect: its target is not there", host.name))
                    }
                }
            }
            server.hosts.push(host);
        }
        Ok(server)
    }

    fn backend(&self, route: &Row) -> Result<Option<Backend>> {
        let target = route.number("target_id");
        Ok(match route.text("target_type", "").as_str() {
            "handler" => self.handlers.get(&target).map(|row| {
                Backend::Handler(Handler {
                    send_spec: row.text("send_spec", ""),
                    send_ident: row.text("send_ident", ""),
                    recv_spec: row.text("recv_spec", ""),
                    recv_ident: row.text("recv_ident", ""),
                    raw_payload: row.number("raw_payload") != 0,
                    protocol: match row.text("protocol", "json").as_str() {
                        "tnetstring" => Protocol::TNetString,
                        _ => Protocol::Json,
                    },
                })
            }),
            "proxy" => self
                .proxies
                .get(&target)
                .map(|row| Backend::Proxy { addr: row.text("addr", ""), port: row.small("port") }),
            "dir" => self.directories.get(&target).map(|row| {
                Backend::Dir(Dir {
                    base: row.text("base", ""),
                    index_file: row.text("index_file", ""),
                    default_ctype: row.text("default_ctype", "text/plain"),
                    cache_ttl: row.small("cache_ttl"),
                })
            }),
            other => {
                bail!("route {}: `{other}` is no type of target; use handler, proxy or dir", route.text("path", ""))
            }
        })
    }

    fn modules(rows: &[Row], server: i64) -> Vec<Module> {
        let own = rows.iter().filter(|row| row.number("server_id") == server);
        own.map(|row| Module { name: row.text("name", ""), settings: row.text("settings", "") }).collect()
    }
}

/// The tables, as `m2sh` makes them.
const TABLES: &str = "
CREATE TABLE server (id INTEGER PRIMARY KEY, uuid TEXT, access_log TEXT, error_log TEXT, chroot TEXT DEFAULT '/var/www',
    pid_file TEXT, control_port TEXT DEFAULT '', default_host TEXT, name TEXT DEFAULT '',
    bind_addr TEXT DEFAULT '0.0.0.0', port INTEGER, use_ssl INTEGER DEFAULT 0);
CREATE TABLE host (id INTEGER PRIMARY KEY, server_id INTEGER, maintenance BOOLEAN DEFAULT 0, name TEXT, matching TEXT);
CREATE TABLE handler (id INTEGER PRIMARY KEY, send_spec TEXT, send_ident TEXT, recv_spec TEXT, recv_ident TEXT,
    raw_payload INTEGER DEFAULT 0, protocol TEXT DEFAULT 'json');
CREATE TABLE proxy (id INTEGER PRIMARY KEY, addr TEXT, port INTEGER);
CREATE TABLE directory (id INTEGER PRIMARY KEY, base TEXT, index_file TEXT, default_ctype TEXT, cache_ttl INTEGER DEFAULT 0);
CREATE TABLE route (id INTEGER PRIMARY KEY, path TEXT, reversed BOOLEAN DEFAULT 0, host_id INTEGER, target_id INTEGER,
    target_type TEXT);
CREATE TABLE setting (id INTEGER PRIMARY KEY, key TEXT, value TEXT);
CREATE TABLE mimetype (id INTEGER PRIMARY KEY, mimetype TEXT, extension TEXT);
CREATE TABLE filter (id INTEGER PRIMARY KEY, server_id INTEGER, name TEXT, settings TEXT);
CREATE TABLE xrequest (id INTEGER PRIMARY KEY, server_id INTEGER, name TEXT, settings TEXT);
CREATE TABLE statistic (id SERIAL, other_type TEXT, other_id INTEGER, name TEXT, sum REAL, sumsq REAL, n INTEGER,
    min REAL, max REAL, mean REAL, sd REAL, primary key (other_type, other_id, name));
";

/// Names of the tables that a configuration replaces.
const REPLACED: [&str; 11] = [
    "server",
    "host",
    "handler",
    "proxy",
    "directory",
    "route",
    "setting",
    "mimetype",
    "filter",
    "xrequest",
    "statistic",
];

/// The log of what was done to a database.
const LOG_TABLE: &str = "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, who TEXT, what TEXT, location TEXT,
    happened_at DATETIME, how TEXT, why TEXT);";

/// Puts a configuration into a database, in the place of the one that is there. All of it, or nothing.
pub(crate) fn write(path: &Path, conf: &Conf) -> Result<()> {
    let mut database =
        Connection::open(path).with_context(|| format!("the database {} cannot be opened", path.display()))?;
    let transaction = database.transaction()?;
    for table in REPLACED {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table};"))?;
    }
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(LOG_TABLE)?;
    for server in &conf.servers {
        write_server(&transaction, server)?;
    }
    for (key, value) in &conf.settings {
        transaction.execute("INSERT INTO setting (key, value) VALUES (?1, ?2)", params![key, value])?;
    }
    for (extension, kind) in &conf.mimetypes {
        transaction.execute("INSERT INTO mimetype (mimetype, extension) VALUES (?1, ?2)", params![kind, extension])?;
    }
    transaction.commit().with_context(|| format!("the database {} cannot be written", path.display()))
}

fn write_server(database: &Connection, server: &Server) -> Result<()> {
    database.execute(
        "INSERT INTO server (uuid, access_log, error_log, chroot, pid_file, control_port, default_host, name, bind_addr,
            port, use_ssl) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            server.uuid,
            server.access_log,
            server.error_log,
            server.chroot,
            server.pid_file,
            server.control_port,
            server.default_host,
            server.name,
            server.bind_addr,
            server.port,
            i64::from(server.use_ssl),
        ],
    )?;
    let own = database.last_insert_rowid();
    for (table, modules) in [("filter", &server.filters), ("xrequest", &server.xrequests)] {
        for module in modules {
            let insert = format!("INSERT INTO {table} (server_id, name, settings) VALUES (?1, ?2, ?3)");
            database.execute(&insert, params![own, module.name, module.settings])?;
        }
    }
    // A target that several routes share is one row.
    let mut targets: Vec<(&Backend, i64)> = Vec::new();
    for host in &server.hosts {
        let insert = "INSERT INTO host (server_id, name, matching) VALUES (?1, ?2, ?3)";
        database.execute(insert, params![own, host.name, host.matching])?;
        let host_id = database.last_insert_rowid();
        for (path, backend) in &host.routes {
            let known = targets.iter().find(|(known, _)| *known == backend).map(|(_, id)| *id);
            let target = match known {
                Some(id) => id,
                None => {
                    let id = write_backend(database, backend)?;
                    targets.push((backend, id));
                    id
                }
            };
            database.execute(
                "INSERT INTO route (path, host_id, target_id, target_type) VALUES (?1, ?2, ?3, ?4)",
                params![path, host_id, target, kind(backend)],
            )?;
        }
    }
    Ok(())
}

fn kind(backend: &Backend) -> &'static str {
    match backend {
        Backend::Dir(_) => "dir",
        Backend::Handler(_) => "handler",
        Backend::Proxy { .. } => "proxy",
    }
}

fn write_backend(database: &Connection, backend: &Backend) -> Result<i64> {
    match backend {
        Backend::Dir(dir) => database.execute(
            "INSERT INTO directory (base, index_file, default_ctype, cache_ttl) VALUES (?1, ?2, ?3, ?4)",
            params![dir.base, dir.index_file, dir.default_ctype, dir.cache_ttl],
        )?,
        Backend::Handler(handler) => database.execute(
            "INSERT INTO handler (send_spec, send_ident, recv_spec, recv_ident, raw_payload, protocol)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                handler.send_spec,
                handler.send_ident,
                handler.recv_spec,
                handler.recv_ident,
                i64::from(handler.raw_payload),
                if handler.protocol == Protocol::TNetString { "tnetstring" } else { "json" },
            ],
        )?,
        Backend::Proxy { addr, port } => {
            database.execute("INSERT INTO proxy (addr, port) VALUES (?1, ?2)", params![addr, port])?
        }
    };
    Ok(database.last_insert_rowid())
}

/// Adds a line to the log of a database.
pub(crate) fn add_log(path: &Path, who: &str, what: &str, place: &str, how: &str, why: &str) -> Result<()> {
    let database =
        Connection::open(path).with_context(|| format!("the database {} cannot be opened", path.display()))?;
    database.execute_batch(LOG_TABLE)?;
    database.execute(
        "INSERT INTO log (who, what, location, happened_at, how, why) VALUES (?1, ?2, ?3, datetime('now'), ?4, ?5)",
        params![who, what, place, how, why],
    )?;
    Ok(())
}

/// The lines of the log of a database.
pub(crate) fn log(path: &Path) -> Result<Vec<String>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)
        .with_context(|| format!("the database {} cannot be opened", path.display()))?;
    let shown = |row: &Row| {
        ["happened_at", "who", "location", "how", "what", "why"].map(|column| row.text(column, "")).join(" ")
    };
    Ok(rows(&database, "log")?.iter().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = r#"
        chat = Handler(send_spec='tcp://127.0.0.1:9999', send_ident='chat-1', recv_spec='tcp://127.0.0.1:9998',
            recv_ident='x', protocol='tnetstring', raw_payload=1)
        site = Host(name="a.test", matching="(x).a.test", routes={ '/chat': chat, '/two': chat,
            '/s/': Dir(base='s/', index_file='i', default_ctype='t/p', cache_ttl=3), '/p': Proxy(addr='h', port=80) })
        main = Server(uuid="u-1", name="main", port=6767, access_log="/a", error_log="/e", chroot="./", pid_file="/p",
            default_host="a.test", use_ssl=1, control_port="ipc://c", hosts=[site], filters=[Filter(name="f.so")])
        settings = {"zeromq.threads": 1}
        mimetypes = {'.wf': 'application/x-waft'}
        servers = [main]"#;

    #[test]
    fn a_configuration_is_written_and_read_alike() {
        let directory = std::env::temp_dir().join(format!("waft-m2sh-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("config.sqlite");
        let conf = waft_mongrel2::conf::parse(SITE).unwrap();
        // Loading again replaces all but the log.
        for _ in 0..2 {
            write(&path, &conf).unwrap();
            add_log(&path, "me", "load", "here", "m2sh", "because").unwrap();
        }
        assert_eq!(read(&path).unwrap(), conf);
        assert_eq!(log(&path).unwrap().len(), 2);
        assert!(log(&path).unwrap()[0].ends_with(" me here m2sh load because"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
