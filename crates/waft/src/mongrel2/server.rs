//! The command `mongrel2 DATABASE UUID`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::read;
use crate::pid_file;
use crate::serve::{self, Configuration};

/// Set for the process that goes on in the background.
const BACKGROUND: &str = "WAFT_IN_BACKGROUND";

/// Runs a server, in the background unless the setting `server.daemonize` says otherwise.
pub(crate) fn main(args: Vec<String>) -> Result<ExitCode> {
    let (path, uuid) = match args.as_slice() {
        [path, uuid] | [path, uuid, _] => (PathBuf::from(path), uuid.clone()),
        _ => bail!("usage: mongrel2 DATABASE UUID"),
    };
    ensure!(args.len() < 3, "configuration modules cannot be loaded; name a database, or a configuration for m2sh");
    let conf = read(&path)?.with_context(|| format!("{} is no configuration of Mongrel2", path.display()))?;
    let plan = waft_config::mongrel2::plan(&conf, Some(&uuid), &path.display().to_string())
        .context("the mongrel2 configuration cannot be used")?;
    let in_foreground = conf.settings.iter().any(|(key, value)| key == "server.daemonize" && value.trim() == "0");
    let is_background = std::env::var_os(BACKGROUND).is_some();
    if !in_foreground && !is_background {
        return start(&path, &uuid, plan.mongrel2.pid_file.as_deref());
    }
    if is_background {
        // Fails only for a process that leads a session already, which is what is wanted.
        let _already = rustix::process::setsid();
    }
    let (file, name) = (path.clone(), path.display().to_string());
    let load = move || {
        let conf = read(&path)?.with_context(|| format!("{} is no configuration of Mongrel2", path.display()))?;
        Ok(waft_config::mongrel2::plan(&conf, Some(&uuid), &name)?)
    };
    let ready = move || {
        if is_background && let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            // Who started the process waits for the end of this.
            let _ended = rustix::stdio::dup2_stderr(&nowhere);
        }
    };
    serve::run(&Configuration { file: Some(file), load: Box::new(load), ready: Box::new(ready) })
}

/// Starts the server in the background and waits until it serves clients.
fn start(path: &Path, uuid: &str, pid_file: Option<&Path>) -> Result<ExitCode> {
    const LOOK: Duration = Duration::from_millis(20);
    let pid_file = pid_file.context("a server in the background needs a pid_file; or set server.daemonize to 0")?;
    if let Some(pid) = pid_file::living(pid_file) {
        bail!("the process {pid} stands in {} and is running; stop it first", pid_file.display());
    }
    let program = std::env::current_exe().context("the program cannot find itself")?;
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::arg0(&mut command, "mongrel2");
    let mut child = command
        .args([path.as_os_str(), uuid.as_ref()])
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("the server cannot be started")?;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the server has ended ({status}); its log says why");
        }
        let written = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if written == Some(child.id()) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
}
