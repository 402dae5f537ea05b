//! Sequence numbers, credits and signs of life of one exchange.

use std::time::{Duration, Instant};

use crate::limits::OVERRUN_TOLERATED;
use crate::{Kind, Packet};

/// How long silence may last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// A sign of life is sent after this long without any other packet: 30 s, as Zurl does it.
    pub keep_alive: Duration,
    /// An exchange whose peer was silent for this long is over: 60 s.
    pub expires: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { keep_alive: Duration::from_secs(30), expires: Duration::from_secs(60) }
    }
}

/// The state that one side keeps for an exchange (ZHTTP sections 5, 6 and 7).
///
/// Create it with [`Exchange::accept`] or [`Exchange::start`]. Call [`Exchange::receive`] for each
/// packet that comes in, and take the number of each that goes out from [`Exchange::stamp`]. Send body
/// bytes only as far as [`Exchange::spend`] allows. Report bytes that were passed on to
/// [`Exchange::consumed`]; [`Exchange::grant`] says how many credits to give back.
#[derive(Clone, Debug)]
pub struct Exchange {
    role: Role,
    pace: Pace,
    websocket: bool,
    /// Whether the peer numbers its packets.
    numbered: bool,
    body_ended: bool,
    overran: bool,
    next_out: u64,
    next_in: u64,
    /// Body bytes this side may send.
    credits: u64,
    /// Body bytes this side is ready to hold.
    window: u64,
    /// Body bytes the peer may still send.
    outstanding: u64,
    /// Body bytes that came and were not passed on yet.
    buffered: u64,
    heard_at: Instant,
    sent_at: Instant,
}

/// Which side of the exchange this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Wants the request performed.
    Client,
    /// Performs it.
    Server,
}

/// What is due when the time of [`Exchange::poll_timeout`] has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// The peer was silent for too long: the exchange is over.
    Expired,
    /// A keep-alive packet.
    KeepAlive,
}

/// A packet that breaks the rules of its exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Body bytes after the packet that ended the body.
    #[error("data after the end of the body")]
    AfterEnd,
    /// More body bytes than were granted, beyond what is tolerated.
    #[error("{excess} body bytes more than the credits allow")]
    Overrun {
        /// How many bytes too many.
        excess: u64,
    },
    /// The packet is not the next one.
    #[error("sequence number {seen:?} where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u64,
        /// The number of the packet.
        seen: Option<u64>,
    },
    /// A first packet that has followers must be number 0.
    #[error("the first packet has the sequence number {seen:?} instead of 0")]
    Start {
        /// The number of the packet.
        seen: Option<u64>,
    },
}

impl Exchange {
    /// The server side of an exchange that `first`, numbered `seq`, opens. `window` is how many bytes of
    /// request body (or of WebSocket messages) it is ready to hold.
    pub fn accept(
        now: Instant,
        window: u64,
        first: &Packet,
        seq: Option<u64>,
        websocket: bool,
    ) -> Result<Self, Violation> {
        if (websocket || first.more) && seq != Some(0) {
            return Err(Violation::Start { seen: seq });
        }
        let mut exchange = Self::new(Role::Server, now, window, websocket);
        exchange.numbered = seq.is_some();
        exchange.next_in = seq.unwrap_or(0).saturating_add(1);
        exchange.credits = first.credits;
        exchange.buffered = length(first);
        exchange.body_ended = !websocket && !first.more;
        Ok(exchange)
    }

    /// The client side of an exchange that is about to send its first packet, with the credits that
    /// [`Exchange::grant`] names. `window` is how many bytes of response body it is ready to hold.
    pub fn start(now: Instant, window: u64, websocket: bool) -> Self {
        Self::new(Role::Client, now, window, websocket)
    }

    /// The same exchange, at another pace.
    #[must_use]
    pub fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    fn new(role: Role, now: Instant, window: u64, websocket: bool) -> Self {
        Self {
            role,
            pace: Pace::default(),
            websocket,
            numbered: false,
            body_ended: false,
            overran: false,
            next_out: 0,
            next_in: 0,
            credits: 0,
            window,
            outstanding: 0,
            buffered: 0,
            heard_at: now,
            sent_at: now,
        }
    }

    /// Takes in a packet that is numbered `seq` in this exchange. After an error the exchange is over and
    /// is to be cancelled, unless the packet itself ended it.
    pub fn receive(&mut self, now: Instant, seq: Option<u64>, packet: &Packet) -> Result<(), Violation> {
        if !self.expects(seq) {
            return Err(Violation::Sequence { expected: self.next_in, seen: seq });
        }
        self.next_in = self.next_in.saturating_add(1);
        self.heard_at = now;
        self.credits = self.credits.saturating_add(packet.credits);
        if packet.kind != Kind::Data {
            return Ok(());
        }
        if self.body_ended {
            return Err(Violation::AfterEnd);
        }
        self.body_ended = !self.websocket && !packet.more;
        self.take_body(length(packet))
    }

    /// Whether a packet numbered `seq` is the next one.
    pub fn expects(&self, seq: Option<u64>) -> bool {
        seq == Some(self.next_in) || (seq.is_none() && !self.numbered)
    }

    fn take_body(&mut self, length: u64) -> Result<(), Violation> {
        let excess = length.saturating_sub(self.outstanding);
        self.outstanding = self.outstanding.saturating_sub(length);
        self.buffered = self.buffered.saturating_add(length);
        let tolerated = match self.role {
            _ if excess == 0 => true,
            Role::Client => !std::mem::replace(&mut self.overran, true) && excess <= OVERRUN_TOLERATED,
            Role::Server => self.buffered <= self.window.saturating_mul(2),
        };
        if tolerated { Ok(()) } else { Err(Violation::Overrun { excess }) }
    }

    /// The number of the packet that leaves now.
    pub fn stamp(&mut self, now: Instant) -> u64 {
        self.sent_at = now;
        let seq = self.next_out;
        self.next_out = seq.saturating_add(1);
        seq
    }

    /// The body bytes that may be sent, up to `wanted`; they are spent by the call.
    pub fn spend(&mut self, wanted: usize) -> usize {
        let allowed = usize::try_from(self.credits).unwrap_or(usize::MAX).min(wanted);
        self.credits = self.credits.saturating_sub(as_u64(allowed));
        allowed
    }

    /// Grants this side `credits` in the peer's name, where the peer is known to grant none itself.
    pub fn assume(&mut self, credits: u64) {
        self.credits = self.credits.saturating_add(credits);
    }

    /// The body bytes that may be sent.
    pub fn credits(&self) -> u64 {
        self.credits
    }

    /// `length` body bytes have been passed on.
    pub fn consumed(&mut self, length: usize) {
        self.buffered = self.buffered.saturating_sub(as_u64(length));
    }

    /// The credits to give back now, if any: the packet that leaves next has to carry them.
    pub fn grant(&mut self) -> Option<u64> {
        if self.body_ended {
            return None;
        }
        let credits = self.window.saturating_sub(self.outstanding.saturating_add(self.buffered));
        self.outstanding = self.outstanding.saturating_add(credits);
        (credits > 0).then_some(credits)
    }

    /// Whether the peer has sent its whole body.
    pub fn body_ended(&self) -> bool {
        self.body_ended
    }

    /// When [`Exchange::handle_timeout`] is to be called. `expires` is false where the peer has no way to
    /// show that it lives, as in fire and forget.
    pub fn poll_timeout(&self, expires: bool) -> Instant {
        let keep_alive = self.sent_at + self.pace.keep_alive;
        if expires { keep_alive.min(self.heard_at + self.pace.expires) } else { keep_alive }
    }

    /// What is due at `now`. A keep-alive is due until a packet is stamped.
    pub fn handle_timeout(&self, now: Instant, expires: bool) -> Option<Due> {
        if expires && now >= self.heard_at + self.pace.expires {
            Some(Due::Expired)
        } else {
            (now >= self.sent_at + self.pace.keep_alive).then_some(Due::KeepAlive)
        }
    }
}

fn length(packet: &Packet) -> u64 {
    as_u64(packet.body.len())
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn data(body: usize, more: bool, credits: u64) -> Packet {
        Packet { body: vec![b'x'; body].into(), more, credits, ..Packet::default() }
    }

    fn of(kind: Kind, credits: u64) -> Packet {
        Packet { kind, credits, ..Packet::default() }
    }

    #[test]
    fn the_first_packet_is_number_0_if_more_follows() {
        let now = Instant::now();
        let accept = |more, seq, websocket| Exchange::accept(now, 100, &data(0, more, 0), seq, websocket).map(|_| ());
        assert_eq!(accept(false, None, false), Ok(()));
        assert_eq!(accept(false, Some(5), false), Ok(()));
        assert_eq!(accept(true, Some(0), false), Ok(()));
        for (seq, more, websocket) in [(None, true, false), (Some(1), true, false), (None, false, true)] {
            assert_eq!(accept(more, seq, websocket), Err(Violation::Start { seen: seq }));
        }
    }

    #[test]
    fn every_packet_is_the_next_one() {
        let now = Instant::now();
        let mut exchange = Exchange::accept(now, 100, &data(0, false, 0), Some(0), false).unwrap();
        assert_eq!(exchange.receive(now, Some(1), &of(Kind::KeepAlive, 0)), Ok(()));
        assert_eq!(exchange.receive(now, Some(2), &of(Kind::Credit, 3)), Ok(()));
        for seen in [Some(2), Some(4), None] {
            let error = exchange.clone().receive(now, seen, &of(Kind::KeepAlive, 0));
            assert_eq!(error, Err(Violation::Sequence { expected: 3, seen }));
        }
        assert_eq!(exchange.credits(), 3);
    }

    #[test]
    fn peers_that_do_not_number_their_packets_are_understood() {
        let now = Instant::now();
        let mut exchange = Exchange::accept(now, 100, &data(0, false, 0), None, false).unwrap();
        assert_eq!(exchange.receive(now, None, &of(Kind::Credit, 1)), Ok(()));
        let mut exchange = Exchange::accept(now, 100, &data(0, false, 0), None, false).unwrap();
        assert_eq!(exchange.receive(now, Some(1), &of(Kind::Credit, 1)), Ok(()));
        let mut front = Exchange::start(now, 100, false);
        assert_eq!(front.receive(now, None, &data(5, false, 0)), Ok(()));
    }

    #[test]
    fn the_first_grant_leaves_room_for_the_first_body() {
        let now = Instant::now();
        let mut exchange = Exchange::accept(now, 100, &data(30, true, 0), Some(0), false).unwrap();
        assert_eq!(exchange.grant(), Some(70));
        assert_eq!(exchange.grant(), None);
        exchange.consumed(30);
        assert_eq!(exchange.grant(), Some(30));
        exchange.receive(now, Some(1), &data(100, false, 0)).unwrap();
        exchange.consumed(100);
        assert_eq!(exchange.grant(), None, "the body has ended");
    }

    #[test]
    fn a_server_holds_twice_its_window_and_no_more() {
        let now = Instant::now();
        let mut exchange = Exchange::accept(now, 100, &data(0, true, 0), Some(0), false).unwrap();
        exchange.grant();
        assert_eq!(exchange.receive(now, Some(1), &data(200, true, 0)), Ok(()));
        assert_eq!(exchange.receive(now, Some(2), &data(1, true, 0)), Err(Violation::Overrun { excess: 1 }));
    }

    #[test]
    fn a_front_tolerates_one_large_packet() {
        let now = Instant::now();
        let mut front = Exchange::start(now, 8_192, false);
        front.grant();
        assert_eq!(front.receive(now, Some(0), &data(1_000_000, true, 0)), Ok(()));
        assert_eq!(front.receive(now, Some(1), &data(1, true, 0)), Err(Violation::Overrun { excess: 1 }));
    }

    #[test]
    fn data_after_the_end_is_refused() {
        let now = Instant::now();
        let mut exchange = Exchange::accept(now, 100, &data(0, true, 0), Some(0), false).unwrap();
        exchange.receive(now, Some(1), &data(0, false, 0)).unwrap();
        assert_eq!(exchange.receive(now, Some(2), &data(1, false, 0)), Err(Violation::AfterEnd));
        let mut socket = Exchange::accept(now, 100, &data(0, false, 0), Some(0), true).unwrap();
        assert_eq!(socket.grant(), Some(100));
        socket.receive(now, Some(1), &data(1, false, 0)).unwrap();
        socket.receive(now, Some(2), &data(1, false, 0)).unwrap();
    }

    #[test]
    fn signs_of_life_are_due_in_silence_alone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut exchange = Exchange::accept(start, 100, &data(0, false, 0), Some(0), false).unwrap();
        assert_eq!(exchange.poll_timeout(true), at(30));
        assert_eq!(exchange.handle_timeout(at(29), true), None);
        assert_eq!(exchange.handle_timeout(at(30), true), Some(Due::KeepAlive));
        exchange.stamp(at(30));
        assert_eq!(exchange.handle_timeout(at(59), true), None);
        assert_eq!(exchange.handle_timeout(at(60), true), Some(Due::Expired));
        assert_eq!(exchange.handle_timeout(at(60), false), Some(Due::KeepAlive));
        exchange.receive(at(59), Some(1), &of(Kind::KeepAlive, 0)).unwrap();
        assert_eq!(exchange.handle_timeout(at(118), true), Some(Due::KeepAlive));
        assert_eq!(exchange.handle_timeout(at(119), true), Some(Due::Expired));
    }

    /// One step of two sides that are joined by two queues.
    #[derive(Clone, Debug)]
    enum Step {
        /// The client reads from its queue.
        ClientReceives,
        /// The application takes what the server holds.
        ServerConsumes(usize),
        /// The server reads from its queue.
        ServerReceives,
        /// The client sends as much as it may, up to this.
        Send(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::ClientReceives),
            (1_usize..400).prop_map(Step::ServerConsumes),
            Just(Step::ServerReceives),
            (1_usize..400).prop_map(Step::Send),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// A client that uploads to a server over two queues.
    struct Pair {
        now: Instant,
        client: Exchange,
        server: Exchange,
        up: VecDeque<(u64, Packet)>,
        down: VecDeque<(u64, Packet)>,
        held: usize,
        arrived: usize,
    }

    impl Pair {
        fn new(window: u64, first: usize) -> Self {
            let now = Instant::now();
            let mut client = Exchange::start(now, 0, false);
            let seq = client.stamp(now);
            let server = Exchange::accept(now, window, &data(first, true, 0), Some(seq), false).unwrap();
            let mut pair = Self { now, client, server, up: [].into(), down: [].into(), held: first, arrived: first };
            pair.grant();
            pair
        }

        fn grant(&mut self) {
            if let Some(credits) = self.server.grant() {
                let seq = self.server.stamp(self.now);
                self.down.push_back((seq, of(Kind::Credit, credits)));
            }
        }

        /// Returns how many bytes were sent.
        fn step(&mut self, step: &Step, window: usize) -> usize {
            match *step {
                Step::ClientReceives => {
                    if let Some((seq, packet)) = self.down.pop_front() {
                        self.client.receive(self.now, Some(seq), &packet).unwrap();
                    }
                }
                Step::ServerConsumes(most) => {
                    let taken = most.min(self.held);
                    self.held -= taken;
                    self.server.consumed(taken);
                    self.grant();
                }
                Step::ServerReceives => {
                    if let Some((seq, packet)) = self.up.pop_front() {
                        self.server.receive(self.now, Some(seq), &packet).unwrap();
                        self.held += packet.body.len();
                        self.arrived += packet.body.len();
                        assert!(self.held <= window, "{} bytes held in a window of {window}", self.held);
                    }
                }
                Step::Send(most) => {
                    let allowed = self.client.spend(most);
                    if allowed > 0 {
                        let seq = self.client.stamp(self.now);
                        self.up.push_back((seq, data(allowed, true, 0)));
                    }
                    return allowed;
                }
            }
            0
        }
    }

    proptest! {
        #[test]
        fn credits_are_never_exceeded_and_never_stuck(steps in steps(), window in 1_usize..300, first in 0_usize..300) {
            let first = first.min(window);
            let mut pair = Pair::new(window as u64, first);
            let mut sent = first;
            for step in &steps {
                sent += pair.step(step, window);
            }
            // Whatever happened before, the rest gets through once everyone does their part.
            let goal = sent + 1_000;
            for _ in 0..20_000 {
                for step in [Step::ClientReceives, Step::Send(goal - sent), Step::ServerReceives, Step::ServerConsumes(window)] {
                    sent += pair.step(&step, window);
                }
                if pair.arrived == goal {
                    break;
                }
            }
            prop_assert_eq!(pair.arrived, goal);
        }

        #[test]
        fn packets_in_any_order_are_judged_without_panic(
            packets in proptest::collection::vec((proptest::option::of(0..6_u64), 0..400_usize, any::<bool>(), 0..4_u8, any::<u64>()), 0..30),
            websocket: bool,
        ) {
            let now = Instant::now();
            let mut exchange = Exchange::accept(now, 100, &data(0, true, 0), Some(0), websocket).unwrap();
            let mut due = 1;
            for (seq, body, more, kind, credits) in packets {
                let kind = [Kind::Data, Kind::Credit, Kind::KeepAlive, Kind::Ping][usize::from(kind)];
                let packet = Packet { kind, ..data(body, more, credits) };
                let result = exchange.receive(now, seq, &packet);
                prop_assert_eq!(seq == Some(due), !matches!(result, Err(Violation::Sequence { .. })));
                due += u64::from(seq == Some(due));
                if result.is_err() {
                    break;
                }
                let (credits, spent) = (exchange.credits(), exchange.spend(body));
                prop_assert!(spent as u64 <= credits);
                exchange.consumed(body);
                exchange.grant();
            }
        }
    }
}
