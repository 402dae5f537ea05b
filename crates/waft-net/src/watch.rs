//! The held set's epoll instance, as the runtime sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::pipe::PipeNews;

/// Tells when something has happened in a held set.
#[derive(Debug)]
pub struct Watch {
    epoll: AsyncFd<OwnedFd>,
    pipes: Rc<PipeNews>,
}

/// Something has happened. Ask the held set what, then say so with [`Happened::seen`].
#[derive(Debug)]
pub struct Happened<'a> {
    /// None when something has happened within the shard only.
    guard: Option<AsyncFdReadyGuard<'a, OwnedFd>>,
}

impl Watch {
    #[allow(unsafe_code, reason = "the runtime's registration of a foreign descriptor is an unsafe function")]
    pub(crate) fn new(epoll: OwnedFd, pipes: Rc<PipeNews>) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on and never taken out of it, so that it
        // stays open and the same until the `AsyncFd` is dropped; `OwnedFd` always returns the one it owns.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self { epoll, pipes })
    }

    /// Waits until something has happened.
    ///
    /// # Errors
    /// The system's.
    pub async fn happened(&self) -> io::Result<Happened<'_>> {
        tokio::select! {
            biased;
            guard = self.epoll.readable() => Ok(Happened { guard: Some(guard?) }),
            () = self.pipes.arrived() => Ok(Happened { guard: None }),
        }
    }
}

impl Happened<'_> {
    /// Everything that had happened has been asked for: only what comes after counts.
    pub fn seen(self) {
        if let Some(mut guard) = self.guard {
            guard.clear_ready();
        }
    }
}
