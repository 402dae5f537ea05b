//! From the files to a running thread.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use tracing::{error, info, warn};
use waft_outbound::{Client, Limits, Lookup};
use waft_store::{Log, Options, Reader, Room, Writer};

use super::{Command, Engine, Shared, Then, now_ms, random};
use crate::config::{StartError, WebhooksConfig};
use crate::core::id::Mark;
use crate::core::record::Record;
use crate::core::{Core, Endpoint, Secret, StoredApp, StoredEndpoint};
use crate::send::Rules;

/// Time to reach a receiver.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The application of messages and endpoints that name none.
pub(crate) const DEFAULT_APP: &str = "default";

/// Opens the store, takes in what it has, and starts the thread.
pub(crate) fn start(config: WebhooksConfig, shared: &Arc<Shared>) -> Result<JoinHandle<()>, StartError> {
    let began = Instant::now();
    let mut core = Core::new(config.limits.clone());
    let mut unknown = 0usize;
    let options = Options { bytes_max: config.disk_max, ..Options::default() };
    let log = open(&config.directory, options, &mut core, &mut unknown)?;
    if unknown > 0 {
        warn!(
            records = unknown,
            "Stored records have an unknown form and are passed over; a newer version wrote them?"
        );
    }
    let now = now_ms();
    core.start(now);
    core.forget(now, false);
    let totals = core.totals();
    info!(
        messages = totals.messages,
        pending = totals.open,
        dead = totals.dead,
        disk_bytes = log.bytes(),
        elapsed_ms = began.elapsed().as_millis() as u64,
        "The webhook queue is open."
    );
    let reader = log.reader();
    let told = Arc::clone(shared);
    let writer = Writer::start(log, move || told.mailbox.send(Command::Stored))?;
    let (ready, started) = mpsc::channel();
    let shared = Arc::clone(shared);
    let body = move || run(config, core, shared, reader, writer, &ready);
    let thread = std::thread::Builder::new().name("webhooks".to_owned()).spawn(body)?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_gone) => Err(StartError::Thread(std::io::Error::other("it ended at once"))),
    }
}

fn open(directory: &Path, options: Options, core: &mut Core, unknown: &mut usize) -> Result<Log, StartError> {
    Ok(Log::open(directory, options, &mut |place, bytes| match Record::decode(bytes) {
        Ok(record) => core.replay(place, &record),
        Err(_) => *unknown += 1,
    })?)
}

fn run(
    config: WebhooksConfig,
    core: Core,
    shared: Arc<Shared>,
    reader: Reader,
    writer: Writer,
    ready: &mpsc::Sender<Result<(), StartError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Whoever waits hears that there is no sender any more.
            let _told = ready.send(Err(error.into()));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    let limits = Limits { connect_timeout: CONNECT_TIMEOUT, ..Limits::default() };
    local.block_on(&runtime, async {
        let mut engine = Engine {
            core,
            shared,
            reader,
            writer,
            entries: Vec::new(),
            then: VecDeque::new(),
            client: Client::new(limits, Lookup::System),
            rules: Rules {
                policy: Arc::new(config.policy.clone()),
                allow_insecure: config.allow_insecure,
                timeout: config.timeout,
            },
            in_flight: 0,
            cleaning: None,
            told: VecDeque::new(),
            ticked: 0,
            config,
        };
        let prepared = engine.prepare();
        let good = prepared.is_ok();
        if ready.send(prepared).is_err() || !good {
            return;
        }
        engine.run().await;
    });
    // What is not finished is in the store and begins again with the next start.
    drop(local);
    info!("The webhook queue is closed.");
}

impl Engine {
    /// Puts in what must be there from the start: the mark, and what stands in the configuration.
    fn prepare(&mut self) -> Result<(), StartError> {
        if self.core.mark == Mark::default() {
            let mark = Mark(u64::from_le_bytes(random()) >> 29);
            self.core.mark = mark;
            self.store(Record::Mark(mark).encode(), true, Room::Reserve, Then::Mark);
        }
        let mut apps: Vec<(String, Option<String>)> = vec![(DEFAULT_APP.to_owned(), None)];
        for app in &self.config.apps {
            apps.retain(|(id, _)| *id != app.id);
            apps.push((app.id.clone(), app.token.clone()));
        }
        for (id, token) in apps {
            self.configure_app(&id, token.as_deref());
        }
        let gone = |stored: &StoredEndpoint| {
            stored.configured && !self.config.endpoints.iter().any(|configured| configured.id == stored.id)
        };
        let removed: Vec<u32> =
            self.core.endpoints.values().filter(|one| gone(&one.stored)).map(|one| one.stored.number).collect();
        for number in removed {
            self.core.remove_endpoint(number, now_ms());
            self.store(Record::EndpointGone(number).encode(), true, Room::Reserve, Then::Nothing);
        }
        for configured in self.config.endpoints.clone() {
            let id = configured.id.clone();
            self.configure_endpoint(configured).map_err(|cause| StartError::Endpoint { id, cause })?;
        }
        self.publish_channels();
        self.writer.push(&mut self.entries);
        Ok(())
    }

    fn configure_app(&mut self, id: &str, token: Option<&str>) {
        let token = token.map(|token| token_hash(token.as_bytes()));
        let known = self.core.app(id).map(|app| app.stored.clone());
        let stored = match known {
            Some(known) => StoredApp {
                token: if id == DEFAULT_APP { token.or(known.token) } else { token },
                configured: true,
                ..known
            },
            None => {
                let number = self.core.new_number();
                StoredApp { number, id: id.to_owned(), created: now_ms(), token, configured: true }
            }
        };
        let number = stored.number;
        let record = Record::App(&serde_json::to_vec(&stored).unwrap_or_default()).encode();
        self.core.put_app(stored, None);
        self.store(record, true, Room::Reserve, Then::AppMoved(number, false));
    }

    fn configure_endpoint(&mut self, configured: crate::config::ConfiguredEndpoint) -> Result<(), String> {
        let app =
            self.core.app(&configured.app).ok_or_else(|| format!("there is no application `{}`", configured.app))?;
        let app = app.stored.number;
        let known = self.core.endpoint(&configured.id).map(|endpoint| endpoint.stored.clone());
        let secrets = configured.secrets.into_iter().map(|text| Secret { text, until: None }).collect();
        let number = match &known {
            Some(known) => known.number,
            None => self.core.new_number(),
        };
        let stored = StoredEndpoint {
            number,
            id: configured.id,
            app,
            created: known.as_ref().map_or_else(now_ms, |known| known.created),
            settings: configured.settings,
            secrets,
            stopped: known.as_ref().and_then(|known| known.stopped.clone()),
            verified: true,
            failing_since: known.and_then(|known| known.failing_since),
            configured: true,
            origin: false,
        };
        let record = Record::Endpoint(&serde_json::to_vec(&stored).unwrap_or_default()).encode();
        let endpoint = Endpoint::new(stored, self.config.limits.https_only).map_err(|error| error.to_string())?;
        self.rules.check(&endpoint.stored.settings)?;
        self.core.put_endpoint(endpoint);
        self.store(record, true, Room::Reserve, Then::EndpointMoved(number, false));
        Ok(())
    }
}

/// The SHA-256 of a token.
pub(crate) fn token_hash(token: &[u8]) -> [u8; 32] {
    digest(&SHA256, token).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Ends a thread that was started; used when the owner goes.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("The thread of the webhooks has panicked; what was acknowledged is in the store.");
    }
}
