//! A SockJS session over polls: one target, and clients that come and go.
//!
//! The engine knows no sockets. Whoever owns the target's side tells it what came ([`Session::handle_target`]) and
//! takes what is to be sent ([`Session::poll_target`]); each poll of the client is a [`Session::begin_poll`], any
//! number of [`Session::poll_frame`], and a [`Session::end_poll`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::wire::Frame;

/// How long a session lasts without a poll, and a closed one is remembered.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes that may wait on either side.
const WAITING_MAX: usize = 200_000;

/// What came from the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromTarget {
    Accepted,
    Closed(u16, String),
    Message(String),
    /// It wants no WebSocket, and answered so.
    Refused(u16, Vec<u8>),
}

/// What a poll is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    Frame(Frame),
    /// The answer of a target that accepted nothing: status and body.
    Refused(u16, Vec<u8>),
}

/// Which of the polls of a session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollId(u64);

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Closed(u16, String),
    Refused(u16, Vec<u8>),
}

/// The session.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    /// The client has got its first frame.
    greeted: bool,
    to_client: VecDeque<String>,
    to_target: VecDeque<String>,
    waiting_to_client: usize,
    waiting_to_target: usize,
    polls: u64,
    poll: Option<PollId>,
    /// When it ends, unless a poll comes.
    ends: Instant,
}

impl Session {
    /// A session whose target is being asked.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Connecting,
            greeted: false,
            to_client: VecDeque::new(),
            to_target: VecDeque::new(),
            waiting_to_client: 0,
            waiting_to_target: 0,
            polls: 0,
            poll: None,
            ends: now + LINGER,
        }
    }

    /// Takes in what came from the target.
    pub(crate) fn handle_target(&mut self, now: Instant, event: FromTarget) {
        match (&self.state, event) {
            (State::Connecting, FromTarget::Accepted) => self.state = State::Open,
            (State::Connecting, FromTarget::Refused(status, body)) => self.state = State::Refused(status, body),
            (State::Open, FromTarget::Message(text)) => {
                self.waiting_to_client += text.len();
                self.to_client.push_back(text);
            }
            (State::Connecting | State::Open, FromTarget::Closed(code, reason)) => {
                self.state = State::Closed(code, reason);
                self.ends = now + LINGER;
            }
            _ => {}
        }
    }

    /// Whether the target is to be read now: what waits for the client has a limit.
    pub(crate) fn wants_more(&self) -> bool {
        self.waiting_to_client < WAITING_MAX
    }

    /// A poll begins. None if another one is waiting.
    pub(crate) fn begin_poll(&mut self) -> Option<PollId> {
        if self.poll.is_some() {
            return None;
        }
        self.polls += 1;
        self.poll = Some(PollId(self.polls));
        self.poll
    }

    /// What poll `id` is to be answered with, if there is anything yet.
    pub(crate) fn poll_frame(&mut self, id: PollId) -> Option<Polled> {
        if self.poll != Some(id) || self.state == State::Connecting {
            return None;
        }
        if let State::Refused(status, body) = &self.state {
            return Some(Polled::Refused(*status, body.clone()));
        }
        if !self.greeted && matches!(self.state, State::Open) {
            self.greeted = true;
            return Some(Polled::Frame(Frame::Open));
        }
        if !self.to_client.is_empty() && self.greeted {
            self.waiting_to_client = 0;
            return Some(Polled::Frame(Frame::Messages(self.to_client.drain(..).collect())));
        }
        match &self.state {
            State::Closed(code, reason) => Some(Polled::Frame(Frame::Close(*code, reason.clone()))),
            State::Connecting | State::Open | State::Refused(..) => None,
        }
    }

    /// Poll `id` was answered, or its client has gone.
    pub(crate) fn end_poll(&mut self, now: Instant, id: PollId) {
        if self.poll == Some(id) {
            self.poll = None;
            self.ends = now + LINGER;
        }
    }

    /// Messages of the client. False if they are more than may wait, or nobody takes them any more.
    pub(crate) fn handle_sent(&mut self, messages: Vec<String>) -> bool {
        let size: usize = messages.iter().map(String::len).sum();
        if self.state != State::Open || self.waiting_to_target + size > WAITING_MAX {
            return false;
        }
        self.waiting_to_target += size;
        self.to_target.extend(messages);
        true
    }

    /// Whether the client can send.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open && self.greeted
    }

    /// The next message for the target.
    pub(crate) fn poll_target(&mut self) -> Option<String> {
        let text = self.to_target.pop_front()?;
        self.waiting_to_target = self.waiting_to_target.saturating_sub(text.len());
        Some(text)
    }

    /// When [`Session::handle_timeout`] is due, unless a poll is there.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.poll.is_none().then_some(self.ends)
    }

    /// Time has passed. True if the session is over and is to be forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.poll.is_none() && now >= self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(texts: &[&str]) -> Option<Polled> {
        Some(Polled::Frame(Frame::Messages(texts.iter().map(|text| (*text).to_owned()).collect())))
    }

    fn open(now: Instant) -> Session {
        let mut session = Session::new(now);
        session.handle_target(now, FromTarget::Accepted);
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(poll), Some(Polled::Frame(Frame::Open)));
        session.end_poll(now, poll);
        session
    }

    #[test]
    fn the_first_poll_waits_for_the_target_and_opens() {
        let now = Instant::now();
        let mut session = Session::new(now);
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(poll), None);
        assert!(!session.is_open());
        session.handle_target(now, FromTarget::Accepted);
        assert_eq!(session.poll_frame(poll), Some(Polled::Frame(Frame::Open)));
        assert!(session.is_open());
    }

    #[test]
    fn messages_wait_for_a_poll_and_come_together() {
        let now = Instant::now();
        let mut session = open(now);
        session.handle_target(now, FromTarget::Message("a".to_owned()));
        session.handle_target(now, FromTarget::Message("b".to_owned()));
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(poll), messages(&["a", "b"]));
        assert_eq!(session.poll_frame(poll), None);
    }

    #[test]
    fn there_is_one_poll_at_a_time() {
        let now = Instant::now();
        let mut session = open(now);
        let first = session.begin_poll().unwrap();
        assert_eq!(session.begin_poll(), None);
        session.end_poll(now, first);
        let second = session.begin_poll().unwrap();
        session.end_poll(now, first);
        assert_eq!(session.begin_poll(), None, "an old poll ends no later one");
        session.handle_target(now, FromTarget::Message("a".to_owned()));
        assert_eq!(session.poll_frame(first), None);
        assert_eq!(session.poll_frame(second), messages(&["a"]));
    }

    #[test]
    fn what_came_before_the_close_is_told_before_it() {
        let now = Instant::now();
        let mut session = open(now);
        session.handle_target(now, FromTarget::Message("last".to_owned()));
        session.handle_target(now, FromTarget::Closed(4001, "bye".to_owned()));
        assert!(!session.handle_sent(vec!["late".to_owned()]));
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(poll), messages(&["last"]));
        let close = Some(Polled::Frame(Frame::Close(4001, "bye".to_owned())));
        assert_eq!(session.poll_frame(poll), close);
        session.end_poll(now, poll);
        let again = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(again), close);
    }

    #[test]
    fn a_refusal_is_the_answer() {
        let now = Instant::now();
        let mut session = Session::new(now);
        session.handle_target(now, FromTarget::Refused(404, b"no".to_vec()));
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_frame(poll), Some(Polled::Refused(404, b"no".to_vec())));
    }

    #[test]
    fn a_session_without_polls_ends() {
        let now = Instant::now();
        let mut session = open(now);
        assert!(!session.handle_timeout(now + LINGER / 2));
        let poll = session.begin_poll().unwrap();
        assert_eq!(session.poll_timeout(), None);
        assert!(!session.handle_timeout(now + 2 * LINGER));
        session.end_poll(now + LINGER, poll);
        assert_eq!(session.poll_timeout(), Some(now + 2 * LINGER));
        assert!(session.handle_timeout(now + 2 * LINGER));
    }

    #[test]
    fn what_waits_has_a_limit() {
        let now = Instant::now();
        let mut session = open(now);
        assert!(session.wants_more());
        session.handle_target(now, FromTarget::Message("x".repeat(WAITING_MAX)));
        assert!(!session.wants_more());
        assert!(session.handle_sent(vec!["x".repeat(WAITING_MAX)]));
        assert!(!session.handle_sent(vec!["x".to_owned()]));
        assert_eq!(session.poll_target(), Some("x".repeat(WAITING_MAX)));
        assert!(session.handle_sent(vec!["x".to_owned()]));
    }
}
