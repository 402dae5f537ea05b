//! A running gateway: bound, running, reloaded, drained.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use waft_config::{Listen, Plan};
use waft_control::{ControlApi, ControlConfig, Demo, MetricsService};
use waft_doors::Doors;
use waft_gateway::{AccessLog, Door, Entrance, Gateway, Service};
use waft_grip::sig::VerifyingKey;
use waft_net::{Endpoint, TlsAcceptor, bind, spawn_shards};
use waft_webhooks::Webhooks;

use crate::logging::Log;
use crate::pid_file::PidFile;
use crate::reload::Watch;
use crate::settings::{doors, from_plan, hub_limits, webhooks};
use crate::tls::{self, Tls};

/// Where the configuration comes from, at start and for each reload.
pub(crate) struct Configuration {
    /// Its file, if it has one.
    pub(crate) file: Option<PathBuf>,
    /// Reads it.
    pub(crate) load: Box<dyn Fn() -> Result<Plan>>,
    /// Called when clients are served.
    pub(crate) ready: Box<dyn Fn()>,
}

/// Runs until a signal ends it.
pub(crate) fn run(configuration: &Configuration) -> Result<ExitCode> {
    let plan = (configuration.load)()?;
    let mut settings = from_plan(&plan)?;
    let pid_file = plan.mongrel2.pid_file.as_deref().map(PidFile::claim).transpose()?;
    let webhooks_config = webhooks(&plan)?;
    let log = Log::start(&plan.logging)?;
    let access = open_access_log(&plan)?;
    settings.access_file.clone_from(&access);
    let descriptors = raise_descriptor_limit();
    for note in &plan.notes {
        info!("{note}");
    }
    for warning in waft_config::warnings(&plan) {
        warn!("{warning}");
    }
    tls::tell_unusable(&plan);
    if (plan.server.client_max.get() as u64) > descriptors {
        warn!(
            client_max = plan.server.client_max,
            descriptors,
            "The process may open fewer descriptors than server.client_max asks for; raise the limit (ulimit -n)."
        );
    }
    let shards = match plan.server.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let doors = Doors::new(doors(&plan));
    let gateway = Gateway::new(shards, fastrand::u64(..), hub_limits(&plan), settings, Arc::new(Demo::default()));
    let mut gateway = doors.observe(gateway);
    let mut control = ControlApi::new(control_config(&plan)?);
    let webhooks = webhooks_config.map(Webhooks::start).transpose()?;
    if let Some(webhooks) = &webhooks {
        gateway = gateway.tapped_by(Arc::<Webhooks>::clone(webhooks));
        control = control.extended_by(Arc::<Webhooks>::clone(webhooks));
    }
    let (gateway, control) = (Arc::new(gateway), Arc::new(control));
    let tls = Tls::new(&plan)?;
    let entrances = entrances(&plan, shards, &control, &tls, webhooks.as_ref())?;
    gateway.open_handlers(&gateway.settings())?;
    gateway.open_workers(&gateway.settings()).context("the sockets for ZHTTP workers cannot be opened")?;
    // Closed when everything else has ended, so that the end is told too.
    let _open_doors = doors.open(&gateway)?;
    let (panicked, panics) = mpsc::channel(1);
    let running = start(&gateway, entrances, panicked)?;
    for route in gateway.settings().table.routes() {
        let targets: Vec<_> = route.targets.iter().map(|target| target.address.to_string()).collect();
        info!(route = %route.id, targets = targets.join(" "), "Serving a route.");
    }
    // Removed when everything has ended.
    let _pid_file = pid_file.map(PidFile::write).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        // Whoever was told that waft is ready may send signals and change files.
        let mut signals = Signals::new()?;
        let watch = Watch::new(files(&plan, configuration), tls.directories())?;
        info!(version = env!("CARGO_PKG_VERSION"), shards, "waft is ready");
        (configuration.ready)();
        let running_gateway =
            Running { gateway: &gateway, control: &control, tls: &tls, configuration, log: &log, access };
        attend(&running_gateway, plan, &mut signals, watch, panics).await?;
        drain(&gateway, running, &mut signals).await
    });
    if let Some(webhooks) = webhooks {
        webhooks.stop();
    }
    code
}

/// Opens Mongrel2's access log, if there is to be one.
fn open_access_log(plan: &Plan) -> Result<Option<Arc<AccessLog>>> {
    let Some(path) = &plan.mongrel2.access_log else { return Ok(None) };
    let log = AccessLog::open(path, &plan.mongrel2.default_host)
        .with_context(|| format!("the access log {} cannot be written", path.display()))?;
    Ok(Some(Arc::new(log)))
}

/// The signals that the process acts on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the order to read everything again (true) or to end (false).
    async fn hangup_or_end(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            _ = self.hangup.recv() => true,
        }
    }
}

/// What a shard thread takes with it.
type Entrances = Arc<Mutex<Vec<Option<Vec<Entrance>>>>>;

/// Tells of a shard that ends by a panic.
struct Tell(mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // One word is enough, and a full channel has it already.
            let _told = self.0.try_send(());
        }
    }
}

fn start(
    gateway: &Arc<Gateway>,
    entrances: Vec<Vec<Entrance>>,
    panicked: mpsc::Sender<()>,
) -> Result<Vec<waft_net::Shard>> {
    let count = entrances.len();
    let entrances: Entrances = Arc::new(Mutex::new(entrances.into_iter().map(Some).collect()));
    let gateway = Arc::clone(gateway);
    let body = move |number: usize| {
        let mine = entrances.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number).and_then(Option::take);
        let gateway = Arc::clone(&gateway);
        let tell = Tell(panicked.clone());
        async move {
            let _tell = tell;
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            if let Err(error) = waft_gateway::run(number, gateway, mine.unwrap_or_default()).await {
                error!(shard = number, %error, "A shard could not run; restart the process.");
            }
        }
    };
    Ok(spawn_shards(count, body)?)
}

/// Binds every address once for each shard.
fn entrances(
    plan: &Plan,
    shards: usize,
    control: &Arc<ControlApi>,
    tls: &Tls,
    webhooks: Option<&Arc<Webhooks>>,
) -> Result<Vec<Vec<Entrance>>> {
    let mut all: Vec<Vec<Entrance>> = (0..shards).map(|_| Vec::new()).collect();
    let mut open = |listen: &Listen, door: Door, tls: Option<&TlsAcceptor>, what: &str| -> Result<()> {
        let (listeners, bound) = bind(&listen.endpoint, shards).with_context(|| {
            format!("cannot listen on {} for {what}; is another program using it?", listen.endpoint)
        })?;
        if let Endpoint::Unix { path, .. } = &bound {
            own(path, listen)?;
        }
        info!(address = %bound, what, tls = tls.is_some(), "Listening.");
        for (mine, listener) in all.iter_mut().zip(listeners) {
            mine.push(Entrance { listener, door: door.clone(), tls: tls.cloned() });
        }
        Ok(())
    };
    for (listen, acceptor) in plan.server.listen.iter().zip(&tls.front) {
        let door = listen.route.as_deref().map_or(Door::Front, |route| Door::Route(route.into()));
        open(listen, door, acceptor.as_ref(), "clients")?;
    }
    let control: Arc<dyn Service> = Arc::<ControlApi>::clone(control);
    for listen in &plan.control.listen {
        open(listen, Door::Service(Arc::clone(&control)), tls.control.as_ref(), "control")?;
    }
    if let Some(listen) = &plan.metrics.listen {
        let mut metrics = MetricsService::new(control_config(plan)?);
        if let Some(webhooks) = webhooks {
            metrics = metrics.extended_by(Arc::<Webhooks>::clone(webhooks));
        }
        open(listen, Door::Service(Arc::new(metrics)), None, "metrics")?;
    }
    Ok(all)
}

fn control_config(plan: &Plan) -> Result<ControlConfig> {
    let jwt_key = match plan.control.jwt_key.as_deref() {
        Some(text) => VerifyingKey::parse(text, std::path::Path::new(".")).context("control.jwt_key cannot be used")?,
        None => None,
    };
    Ok(ControlConfig {
        token: plan.control.token.clone(),
        jwt_key,
        body_max: plan.control.body_max.as_usize(),
        header_max: plan.control.header_max.as_usize(),
        pushpin_metrics: plan.metrics.pushpin_names,
        metrics_prefix: plan.metrics.prefix.clone(),
    })
}

/// Gives a Unix socket to the user and group that were asked for.
fn own(path: &std::path::Path, listen: &Listen) -> Result<()> {
    if listen.user.is_none() && listen.group.is_none() {
        return Ok(());
    }
    let id = |file: &str, name: &str| -> Result<u32> {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.split(':').next() == Some(name));
        let id = line.and_then(|line| line.split(':').nth(2)).or(Some(name)).and_then(|id| id.parse().ok());
        id.with_context(|| format!("`{name}` is not in {file}"))
    };
    let user = listen.user.as_deref().map(|user| id("/etc/passwd", user)).transpose()?;
    let group = listen.group.as_deref().map(|group| id("/etc/group", group)).transpose()?;
    std::os::unix::fs::chown(path, user, group).with_context(|| format!("cannot give {} away", path.display()))
}

/// Lets the process open as many descriptors as it may; returns how many that is.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// What is running, and what it came from.
struct Running<'a> {
    gateway: &'a Arc<Gateway>,
    control: &'a ControlApi,
    tls: &'a Tls,
    configuration: &'a Configuration,
    log: &'a Log,
    access: Option<Arc<AccessLog>>,
}

/// Waits for signals and changes of files, until the gateway is to end.
async fn attend(
    running: &Running<'_>,
    mut plan: Plan,
    signals: &mut Signals,
    mut watch: Watch,
    mut panics: mpsc::Receiver<()>,
) -> Result<()> {
    /// How long a changed file may still be being written.
    const SETTLE: Duration = Duration::from_millis(200);
    loop {
        tokio::select! {
            again = signals.hangup_or_end() => {
                if !again {
                    return Ok(());
                }
                if let Err(error) = running.log.reopen() {
                    error!(%error, "The log file could not be opened again; the old one is still written.");
                }
                if let Some(Err(error)) = running.access.as_ref().map(|access| access.reopen()) {
                    error!(%error, "The access log could not be opened again; the old one is still written.");
                }
            }
            () = watch.changed() => {
                tokio::time::sleep(SETTLE).await;
                watch.forget();
            }
            Some(()) = panics.recv() => {
                // Its listeners would be missed for ever; whoever started the process starts it again.
                running.gateway.stop();
                bail!("a shard ended by a panic; please report the log lines before this one");
            }
        }
        if let Err(error) = reload(running, &mut plan) {
            error!(error = format!("{error:#}"), "The new configuration cannot be used; the old one stays in force.");
        }
        // There may be other files now, and directories of certificates.
        match Watch::new(files(&plan, running.configuration), running.tls.directories()) {
            Ok(next) => watch = next,
            Err(error) => warn!(%error, "Changes of new files will not be noticed; send SIGHUP after them."),
        }
    }
}

/// Lets requests under way end, for as long as the plan allows and nobody is in a greater hurry.
async fn drain(gateway: &Gateway, running: Vec<waft_net::Shard>, signals: &mut Signals) -> Result<ExitCode> {
    info!("Stopping.");
    gateway.drain();
    let limit = gateway.settings().drain_timeout;
    let mut ended = tokio::task::spawn_blocking(move || finish(running));
    tokio::select! {
        code = &mut ended => return Ok(code?),
        () = tokio::time::sleep(limit) => warn!("Some requests did not end in time and are cut off."),
        () = signals.end() => {}
    }
    gateway.stop();
    Ok(ended.await?)
}

/// The files whose change brings a reload.
fn files(plan: &Plan, configuration: &Configuration) -> Vec<PathBuf> {
    configuration.file.iter().chain(&plan.routes_file).cloned().collect()
}

fn reload(running: &Running<'_>, plan: &mut Plan) -> Result<()> {
    let next = (running.configuration.load)()?;
    let mut settings = from_plan(&next)?;
    settings.access_file.clone_from(&running.access);
    let changes = waft_config::diff(plan, &next);
    running.gateway.renew();
    running.tls.reload();
    tls::tell_unusable(&next);
    if changes.is_empty() {
        info!("The configuration was read again; nothing has changed.");
        return Ok(());
    }
    for change in &changes {
        info!(%change, "Configuration.");
    }
    for note in next.notes.iter().filter(|note| !plan.notes.contains(note)) {
        warn!("{note}");
    }
    let control = control_config(&next)?;
    running.gateway.open_handlers(&settings)?;
    running.gateway.open_workers(&settings).context("the sockets for ZHTTP workers cannot be opened")?;
    running.control.reload(control);
    running.gateway.reload(settings);
    info!(routes = next.routes.len(), "The new configuration is in force.");
    *plan = next;
    Ok(())
}

/// Waits for the shards to end.
fn finish(running: Vec<waft_net::Shard>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for shard in running {
        if let Err(error) = shard.join() {
            error!("{error}");
            code = ExitCode::FAILURE;
        }
    }
    info!("Stopped.");
    code
}
