//! The held set's epoll instance, as the runtime sees it.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Tells when something has happened in a held set.
#[derive(Debug)]
pub struct Watch {
    epoll: AsyncFd<OwnedFd>,
}

/// Something has happened. Ask the held set what, then say so with [`Happened::seen`].
#[derive(Debug)]
pub struct Happened<'a> {
    guard: AsyncFdReadyGuard<'a, OwnedFd>,
}

impl Watch {
    #[allow(unsafe_code, reason = "the runtime's registration of a foreign descriptor is an unsafe function")]
    pub(crate) fn new(epoll: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on and never taken out of it, so that it
        // stays open and the same until the `AsyncFd` is dropped; `OwnedFd` always returns the one it owns.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self { epoll })
    }

    /// Waits until something has happened.
    ///
    /// # Errors
    /// The system's.
    pub async fn happened(&self) -> io::Result<Happened<'_>> {
        Ok(Happened { guard: self.epoll.readable().await? })
    }
}

impl Happened<'_> {
    /// Everything that had happened has been asked for: only what comes after counts.
    pub fn seen(mut self) {
        self.guard.clear_ready();
    }
}
