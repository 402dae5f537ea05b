//! The sockets of all handlers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::info;
use waft_mongrel2::{Protocol, credits_notice, disconnect_notice};
use waft_route::{Handler, Target, TargetAddress};
use waft_zmq::{Engine, Kind, Message, Receiver, SendError, Sender, SocketOptions};

use crate::settings::Settings;

/// Why a handler cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlersError {
    /// The directory of an ipc socket cannot be made.
    #[error("the directory of {address} cannot be made; make it, or choose another address")]
    Directory {
        /// The address of the socket.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A socket cannot be opened.
    #[error("the sockets of a handler cannot be opened")]
    Socket(#[from] waft_zmq::Error),
}

/// The handlers of the configuration, with their sockets.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    engine: Option<Engine>,
    /// Sockets by both addresses. Those of handlers that are configured no more stay open, since their connections may
    /// still be answered.
    pairs: HashMap<(String, String), Pair>,
    links: HashMap<Handler, Arc<Link>>,
}

#[derive(Debug)]
struct Pair {
    push: Sender,
    /// Subscribes to further names.
    subscribe: Sender,
    names: Vec<String>,
    /// The pushing socket lives as long as this, although nothing ever comes out of it.
    _push: Receiver,
}

/// The way to a handler.
#[derive(Debug)]
pub(crate) struct Link {
    push: Sender,
    pub(crate) ident: Box<[u8]>,
    pub(crate) protocol: Protocol,
}

/// A receiving socket that was opened just now, with whom it belongs to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) receiver: Receiver,
    pub(crate) link: Arc<Link>,
}

impl Handlers {
    /// Opens the sockets of all handlers in `settings` that are not open yet. What has to be received from goes to
    /// whoever called.
    pub(crate) fn open(&self, settings: &Settings) -> Result<Vec<Opened>, HandlersError> {
        let mut inner = self.lock();
        let mut opened = Vec::new();
        for target in settings.table.routes().iter().flat_map(|route| &route.targets) {
            if let TargetAddress::Handler(handler) = &target.address
                && !inner.links.contains_key(&**handler)
            {
                opened.extend(inner.add(handler, target, settings.handlers.queue_max)?);
            }
        }
        Ok(opened)
    }

    /// The way to a handler; none if its sockets could not be opened.
    pub(crate) fn link(&self, handler: &Handler) -> Option<Arc<Link>> {
        self.lock().links.get(handler).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Maps are whole whatever happened elsewhere.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, handler: &Handler, target: &Target, queue_max: usize) -> Result<Option<Opened>, HandlersError> {
        let addresses = (handler.send_spec.clone(), handler.recv_spec.clone());
        let link = |push: &Sender| {
            Arc::new(Link {
                push: push.clone(),
                ident: handler.send_ident.as_bytes().into(),
                protocol: handler.protocol,
            })
        };
        if let Some(pair) = self.pairs.get_mut(&addresses) {
            if !pair.names.contains(&handler.recv_ident) {
                pair.names.push(handler.recv_ident.clone());
                // A queue that is full or closed has nobody to hear from either.
                let _told = pair.subscribe.send(subscription(&handler.recv_ident));
            }
            self.links.insert(handler.clone(), link(&pair.push));
            return Ok(None);
        }
        let engine = match &mut self.engine {
            Some(engine) => engine,
            none => none.insert(Engine::start("zmq-handlers")?),
        };
        let open = |address: &str, options: SocketOptions| -> Result<waft_zmq::Opened, HandlersError> {
            make_room(address)?;
            let ipc_file_mode = target.ipc_file_mode;
            let opened = engine.open(&SocketOptions { bind: vec![address.to_owned()], ipc_file_mode, ..options })?;
            info!(address, "Listening with ZeroMQ for handlers.");
            Ok(opened)
        };
        let identity = Some(Bytes::copy_from_slice(handler.send_ident.as_bytes()));
        // Requests wait in the queue before the socket, whose length is known, rather than inside of it.
        let push = open(&handler.send_spec, SocketOptions { identity, queue_max, ..SocketOptions::new(Kind::Push) })?;
        // Not a SUB: names may be added to an XSUB at any time.
        let sub = open(&handler.recv_spec, SocketOptions { receive_hwm: 0, ..SocketOptions::new(Kind::Xsub) })?;
        let _told = sub.sender.send(subscription(&handler.recv_ident));
        let link = link(&push.sender);
        self.links.insert(handler.clone(), Arc::clone(&link));
        let names = vec![handler.recv_ident.clone()];
        self.pairs.insert(addresses, Pair { push: push.sender, subscribe: sub.sender, names, _push: push.receiver });
        Ok(Some(Opened { receiver: sub.receiver, link }))
    }
}

/// The message by which an XSUB subscribes to a prefix.
fn subscription(prefix: &str) -> Message {
    Message::single([b"\x01", prefix.as_bytes()].concat())
}

/// Makes the directory of an ipc socket.
fn make_room(address: &str) -> Result<(), HandlersError> {
    let directory = address.strip_prefix("ipc://").and_then(|path| Path::new(path).parent());
    match directory.filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => std::fs::create_dir_all(directory)
            .map_err(|source| HandlersError::Directory { address: address.to_owned(), source }),
        None => Ok(()),
    }
}

impl Link {
    /// Sends a message to one of the processes of the handler.
    pub(crate) fn send(&self, message: Bytes) -> Result<(), SendError> {
        self.push.send(Message::single(message))
    }

    /// Tells the handler that a connection has gone.
    pub(crate) fn tell_gone(&self, id: u64) {
        // Nobody is there to be told if the queue is full.
        let _told = self.send(disconnect_notice(&self.ident, id, self.protocol));
    }

    /// Tells the handler that a client has taken so many bytes.
    pub(crate) fn tell_credits(&self, id: u64, credits: u64) {
        let _told = self.send(credits_notice(&self.ident, id, credits, self.protocol));
    }
}
