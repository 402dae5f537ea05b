//! Request bodies: none, whole, or produced piece by piece and remembered for redirects.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

/// Produces a request body piece by piece. Asking for a piece says that the one before was written.
pub trait BodySource {
    /// The next piece, `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum RequestBody {
    /// All of it; empty means that there is none.
    Whole(Bytes),
    /// Piece by piece, with its length if it is known.
    Stream(Replay, Option<u64>),
}

/// A source whose pieces are remembered up to a bound, so that a redirect can send them again.
#[derive(Clone)]
pub struct Replay {
    shared: Rc<RefCell<Shared>>,
    next: usize,
}

struct Shared {
    source: Box<dyn BodySource>,
    pieces: Vec<Bytes>,
    room: usize,
    forgotten: bool,
    ended: bool,
}

impl Replay {
    /// Remembers up to `room` bytes; 0 for a call that follows no redirect.
    pub fn new(source: Box<dyn BodySource>, room: usize) -> Self {
        let shared = Shared { source, pieces: Vec::new(), room, forgotten: false, ended: false };
        Self { shared: Rc::new(RefCell::new(shared)), next: 0 }
    }

    /// The body from its beginning again, unless pieces were forgotten.
    pub(crate) fn rewound(&self) -> Option<Self> {
        (!self.shared.borrow().forgotten).then(|| Self { shared: Rc::clone(&self.shared), next: 0 })
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(piece) = shared.pieces.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(piece.clone()));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(shared.source.poll_piece(cx));
        match &piece {
            None => shared.ended = true,
            Some(piece) if !shared.forgotten && piece.len() <= shared.room => {
                shared.room -= piece.len();
                shared.pieces.push(piece.clone());
                self.next += 1;
            }
            Some(_) => {
                shared.forgotten = true;
                shared.pieces = Vec::new();
                self.next = 0;
            }
        }
        Poll::Ready(piece)
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("next", &self.next).finish_non_exhaustive()
    }
}
