//! Connections within a shard: what one task writes another reads, without the kernel.
//!
//! A stream of a multiplexed connection (HTTP/2) is one end of a pipe for whoever serves it: the other end belongs to
//! the task that speaks the multiplexed protocol. An end can be worked on as a [`Stream`](crate::Stream) and lie in a
//! [`HeldSet`](crate::HeldSet) like any other connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

/// Bytes that may wait in one direction of a pipe before its writer has to wait: 64 KiB.
pub const PIPE_ROOM: usize = 64 << 10;

/// One end of a connection within a shard.
///
/// Dropping it is what closing a socket is: the other end reads what was written and then the end of the stream, and
/// its own writes fail.
#[derive(Debug)]
pub struct Pipe {
    lanes: Rc<Lanes>,
    /// Which of the lanes this end writes to; it reads from the other one.
    side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

#[derive(Debug, Default)]
struct Lanes {
    first: RefCell<Lane>,
    second: RefCell<Lane>,
    secure: Cell<bool>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    parts: VecDeque<Bytes>,
    bytes: usize,
    /// The writer will write no more.
    ended: bool,
    /// The writer broke the connection; what it wrote is lost.
    reset: bool,
    /// The reader has gone.
    unread: bool,
    reader: Wake,
    writer: Wake,
}

/// Who is told when a lane has something new.
#[derive(Debug, Default)]
enum Wake {
    #[default]
    Nobody,
    /// A task, once.
    Task(Waker),
    /// A held set, each time.
    Held(Rc<PipeNews>, u64),
}

/// What happened on pipes in a held set: the keys of those on which something did.
#[derive(Debug, Default)]
pub(crate) struct PipeNews {
    keys: RefCell<Vec<u64>>,
    arrived: Notify,
}

impl PipeNews {
    fn tell(&self, key: u64) {
        let mut keys = self.keys.borrow_mut();
        if keys.last() != Some(&key) {
            keys.push(key);
        }
        self.arrived.notify_one();
    }

    /// Waits until something has happened.
    pub(crate) async fn arrived(&self) {
        while self.keys.borrow().is_empty() {
            self.arrived.notified().await;
        }
    }

    /// The keys told since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.keys.borrow_mut())
    }
}

impl Wake {
    fn wake(&mut self) {
        match self {
            Self::Nobody => {}
            Self::Task(_) => {
                if let Self::Task(waker) = std::mem::take(self) {
                    waker.wake();
                }
            }
            Self::Held(news, key) => news.tell(*key),
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match self {
            Self::Task(waker) => waker.clone_from(cx.waker()),
            Self::Nobody | Self::Held(..) => *self = Self::Task(cx.waker().clone()),
        }
    }
}

impl Pipe {
    /// The two ends of a new connection. `secure` says whether what it stands for is encrypted.
    pub fn pair(secure: bool) -> (Self, Self) {
        let lanes = Rc::new(Lanes { secure: Cell::new(secure), ..Lanes::default() });
        (Self { lanes: Rc::clone(&lanes), side: Side::First }, Self { lanes, side: Side::Second })
    }

    /// Whether the connection that this one stands for is encrypted.
    pub fn is_secure(&self) -> bool {
        self.lanes.secure.get()
    }

    fn outgoing(&self) -> &RefCell<Lane> {
        match self.side {
            Side::First => &self.lanes.first,
            Side::Second => &self.lanes.second,
        }
    }

    fn incoming(&self) -> &RefCell<Lane> {
        match self.side {
            Side::First => &self.lanes.second,
            Side::Second => &self.lanes.first,
        }
    }

    /// Writes all of `data` if there is room for anything at all, so that what waits exceeds [`PIPE_ROOM`] by less than
    /// one write; says whether it was taken.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads any more.
    pub fn send(&self, data: &Bytes) -> io::Result<bool> {
        let mut lane = self.outgoing().borrow_mut();
        if lane.unread || lane.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if lane.bytes >= PIPE_ROOM {
            return Ok(false);
        }
        if !data.is_empty() {
            lane.bytes += data.len();
            lane.parts.push_back(data.clone());
            lane.reader.wake();
        }
        Ok(true)
    }

    /// Waits for room to write.
    ///
    /// # Errors
    /// As for [`Pipe::send`].
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.outgoing().borrow_mut();
        if lane.unread || lane.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if lane.bytes < PIPE_ROOM {
            return Poll::Ready(Ok(()));
        }
        lane.writer.wait(cx);
        Poll::Pending
    }

    /// The next piece that the other end wrote, as it wrote it; none at the end of the stream.
    ///
    /// # Errors
    /// `ConnectionReset` when the other end broke the connection.
    pub fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let mut lane = self.incoming().borrow_mut();
        if lane.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(part) = lane.parts.pop_front() {
            lane.took(part.len());
            return Poll::Ready(Ok(Some(part)));
        }
        if lane.ended {
            return Poll::Ready(Ok(None));
        }
        lane.reader.wait(cx);
        Poll::Pending
    }

    /// Ends the direction to the other end, which may still write.
    pub fn end(&self) {
        let mut lane = self.outgoing().borrow_mut();
        if !lane.ended {
            lane.ended = true;
            lane.reader.wake();
        }
    }

    /// Breaks the connection, in both directions.
    pub fn reset(&self) {
        {
            let mut lane = self.outgoing().borrow_mut();
            lane.reset = true;
            lane.ended = true;
            lane.parts = VecDeque::new();
            lane.bytes = 0;
            lane.reader.wake();
        }
        self.incoming().borrow_mut().refuse();
    }

    pub(crate) fn poll_read(&self, cx: &Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming().borrow_mut();
        match lane.read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                lane.reader.wait(cx);
                Poll::Pending
            }
            read => Poll::Ready(read),
        }
    }

    /// Reads without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; `ConnectionReset`.
    pub(crate) fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.incoming().borrow_mut().read(into)
    }

    pub(crate) fn poll_write(&self, cx: &Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>().min(PIPE_ROOM);
        if self.poll_room(cx)?.is_pending() {
            return Poll::Pending;
        }
        let mut data = Vec::with_capacity(total);
        for part in parts {
            let room = total - data.len();
            data.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        Poll::Ready(self.send(&data.into()).map(|_taken| total))
    }

    /// Whether the other end broke the connection or is gone for good.
    pub(crate) fn is_broken(&self) -> bool {
        self.incoming().borrow().reset
    }

    /// Whether nothing can be read right now: no bytes, no end.
    pub(crate) fn is_quiet(&self) -> bool {
        let lane = self.incoming().borrow();
        lane.parts.is_empty() && !lane.ended && !lane.reset
    }

    /// Has `news` told of `key` whenever something can be read, or written again. It is told once at the start.
    pub(crate) fn hold(&self, news: &Rc<PipeNews>, key: u64) {
        self.incoming().borrow_mut().reader = Wake::Held(Rc::clone(news), key);
        self.outgoing().borrow_mut().writer = Wake::Held(Rc::clone(news), key);
        news.tell(key);
    }

    /// Nobody is told any more.
    pub(crate) fn release(&self) {
        self.incoming().borrow_mut().reader = Wake::Nobody;
        self.outgoing().borrow_mut().writer = Wake::Nobody;
    }

    /// What a held set wants to know: whether something can be read, whether the other end has ended its side, whether
    /// the connection is broken, whether something can be written.
    pub(crate) fn readiness(&self) -> (bool, bool, bool, bool) {
        let (incoming, outgoing) = (self.incoming().borrow(), self.outgoing().borrow());
        let readable = !incoming.parts.is_empty() || incoming.ended;
        let failed = incoming.reset || outgoing.unread;
        (readable, incoming.ended, failed, outgoing.bytes < PIPE_ROOM)
    }
}

impl Lane {
    /// Counts what was taken out, and wakes the writer when that made room.
    fn took(&mut self, count: usize) {
        let before = self.bytes;
        self.bytes -= count;
        if before >= PIPE_ROOM && self.bytes < PIPE_ROOM {
            self.writer.wake();
        }
        if self.parts.is_empty() {
            // A held end is quiet for most of its life and then owns nothing.
            self.parts = VecDeque::new();
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut count = 0;
        while let (Some(part), Some(room)) = (self.parts.front_mut(), into.get_mut(count..)) {
            let taken = part.len().min(room.len());
            let (Some(to), Some(from)) = (room.get_mut(..taken), part.get(..taken)) else { break };
            to.copy_from_slice(from);
            part.advance(taken);
            count += taken;
            if !part.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
        if count == 0 && !self.ended && !into.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.took(count);
        Ok(count)
    }

    /// Nobody will read this any more.
    fn refuse(&mut self) {
        self.unread = true;
        self.parts = VecDeque::new();
        self.bytes = 0;
        self.writer.wake();
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.end();
        self.incoming().borrow_mut().refuse();
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pipe: &Pipe, room: usize) -> String {
        let mut into = vec![0; room];
        match pipe.read_now(&mut into) {
            Ok(count) => format!("{}", into[..count].escape_ascii()),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    fn send(pipe: &Pipe, data: &'static str) {
        assert!(pipe.send(&Bytes::from_static(data.as_bytes())).unwrap());
    }

    #[test]
    fn what_one_end_writes_the_other_reads_in_pieces_of_any_size() {
        let (ours, theirs) = Pipe::pair(false);
        send(&ours, "hello ");
        send(&ours, "world");
        assert_eq!(read(&theirs, 3), "hel");
        assert_eq!(read(&theirs, 5), "lo wo");
        assert_eq!(read(&theirs, 64), "rld");
        assert_eq!(read(&theirs, 64), "WouldBlock");
        assert_eq!(read(&ours, 64), "WouldBlock");
        drop(ours);
        assert_eq!(read(&theirs, 64), "");
    }

    #[test]
    fn a_writer_waits_when_the_pipe_is_full_and_is_told_of_room() {
        let news = Rc::new(PipeNews::default());
        let (ours, theirs) = Pipe::pair(false);
        ours.hold(&news, 7);
        assert_eq!(news.take(), [7]);
        let large = Bytes::from(vec![0; PIPE_ROOM - 1]);
        assert!(ours.send(&large).unwrap());
        assert!(ours.send(&large).unwrap(), "there was room for a byte");
        assert!(!ours.send(&large).unwrap());
        assert_eq!(ours.readiness(), (false, false, false, false));
        assert_eq!(read(&theirs, PIPE_ROOM - 1).len() % 4, 0);
        assert!(!news.take().contains(&7) || ours.readiness().3);
        read(&theirs, PIPE_ROOM);
        assert!(ours.readiness().3);
        assert!(ours.send(&large).unwrap());
    }

    #[test]
    fn a_held_end_is_told_of_bytes_of_the_end_and_of_a_reset() {
        let news = Rc::new(PipeNews::default());
        let (ours, theirs) = Pipe::pair(true);
        ours.hold(&news, 7);
        news.take();
        send(&theirs, "x");
        assert_eq!((news.take().as_slice(), ours.readiness()), ([7].as_slice(), (true, false, false, true)));
        assert_eq!(read(&ours, 9), "x");
        theirs.end();
        assert_eq!((news.take().as_slice(), ours.readiness()), ([7].as_slice(), (true, true, false, true)));
        theirs.reset();
        assert_eq!((news.take().as_slice(), ours.readiness()), ([7].as_slice(), (true, true, true, true)));
        assert_eq!(read(&ours, 9), "ConnectionReset");
        assert_eq!(ours.send(&Bytes::from_static(b"y")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn writing_to_an_end_that_is_gone_fails() {
        let (ours, theirs) = Pipe::pair(false);
        send(&ours, "lost");
        drop(theirs);
        assert_eq!(ours.send(&Bytes::from_static(b"y")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read(&ours, 9), "");
    }
}
