//! A server with a configuration of Mongrel2, in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use waft_testkit::{Process, eventually, free_port, program, waft};

/// Which program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The genuine one.
    Mongrel2,
    /// The one of this workspace.
    Waft,
}

impl Which {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mongrel2 => "mongrel2",
            Self::Waft => "waft",
        }
    }
}

/// A running server.
pub(crate) struct Site {
    pub(crate) directory: PathBuf,
    pub(crate) port: u16,
    /// The sockets of handlers are at this port and those after it.
    pub(crate) base: u16,
    server: Process,
}

impl Site {
    /// Starts a server with these settings, whose `DIRECTORY` is put in.
    pub(crate) fn start(which: Which, name: &str, settings: &str) -> Self {
        let directory = make_directory(&format!("{name}-{}", which.name()));
        let (port, base) = (free_port(), free_base());
        fs::write(directory.join("mongrel2.conf"), conf(&directory, port, base, settings)).unwrap();
        let path = directory.to_str().unwrap();
        let server = match which {
            Which::Mongrel2 => {
                let load = program("m2sh").args(["load", "-db", "config.sqlite", "-config", "mongrel2.conf"]);
                load.env("LOGNAME", "test").directory(path).succeed();
                // As root it would give up its rights, and change its root.
                let command = "if [ $(id -u) = 0 ]; then chown -R nobody . && exec setpriv --reuid=nobody --clear-groups \
                               mongrel2 config.sqlite u-1; else exec mongrel2 config.sqlite u-1; fi";
                program("bash").args(["-c", command]).directory(path).start()
            }
            Which::Waft => waft().args(["--config", "mongrel2.conf"]).directory(path).start(),
        };
        eventually("the server's port", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { directory, port, base, server }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    pub(crate) fn wait_for_exit(&mut self) -> std::process::ExitStatus {
        self.server.wait_for_exit()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is left of it is of use to nobody but a person who looks for a mistake.
        if !std::thread::panicking() {
            let _gone = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A directory of a test, empty but for the files that are served.
pub(crate) fn make_directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("waft-mongrel2-{name}-{}", std::process::id()));
    let _left_over = fs::remove_dir_all(&directory);
    for part in ["logs", "run", "files/sub"] {
        fs::create_dir_all(directory.join(part)).unwrap();
    }
    fs::write(directory.join("files/a.txt"), "file a\n").unwrap();
    fs::write(directory.join("files/sub/index.html"), "index of sub\n").unwrap();
    fs::write(directory.join("secret"), "secret\n").unwrap();
    directory
}

/// The first of some ports in a row that are free, and that no other test of this process gets.
pub(crate) fn free_base() -> u16 {
    const COUNT: u16 = 21;
    eventually("free ports in a row", || {
        let ports: Vec<u16> = (0..COUNT).map(|_| free_port()).collect();
        let is_row = ports.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        is_row.then(|| ports[0])
    })
}

/// The configuration of a site with two handlers, files and a proxy.
pub(crate) fn conf(directory: &Path, port: u16, base: u16, settings: &str) -> String {
    let path = directory.display();
    let at = |offset: u16| format!("tcp://127.0.0.1:{}", base + offset);
    format!(
        r#"
one = Handler(send_spec='{}', send_ident='one', recv_spec='{}', recv_ident='')
two = Handler(send_spec='{}', send_ident='two', recv_spec='{}', recv_ident='', protocol='tnetstring')
site = Host(name="one.test", routes={{
    '/json': one, '/map/': two, '/pattern/(v[12])/.*$': one
    '/files/': Dir(base='files/', index_file='index.html', default_ctype='text/plain')
    '/proxy/': Proxy(addr='127.0.0.1', port={})
}})
wild = Host(name="wild", matching="(a+).wild.test", routes={{ '/w': one }})
main = Server(uuid="u-1", name="main", port={port}, access_log="/logs/access.log", error_log="/logs/error.log",
    chroot="{path}", pid_file="/run/m2.pid", default_host="one.test", hosts=[site, wild])
settings = {{"control_port": "ipc://{path}/control", "server.daemonize": 0 {} }}
servers = [main]
"#,
        at(0),
        at(1),
        at(2),
        at(3),
        base + 20,
        settings.replace("DIRECTORY", &path.to_string()),
    )
}
