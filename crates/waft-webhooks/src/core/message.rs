//! What is kept in memory of a message: where it lies, and how far its deliveries are.

use waft_store::Place;

/// A message and its deliveries. A million of them must fit into little memory, so its content stays on disk.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it lies.
    pub place: Place,
    /// Its application.
    pub app: u32,
    /// What its order is kept by; 0 is nothing.
    pub order: u64,
    /// One for each endpoint.
    pub deliveries: Box<[Delivery]>,
    /// Where the tries lie, in their order.
    pub attempts: Box<[Place]>,
}

const _: () = assert!(size_of::<Message>() <= 64);

/// The delivery of a message to one endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The endpoint.
    pub endpoint: u32,
    /// Tries that failed since it was last given to the queue.
    pub attempts: u16,
    /// How far it is.
    pub state: State,
    /// When it is to be tried, in Unix milliseconds, or when it got its last state.
    pub due: u64,
}

const _: () = assert!(size_of::<Delivery>() <= 16);

/// How far a delivery is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It failed for good, and lies with the dead letters.
    Dead,
    /// The endpoint has taken it.
    Delivered,
    /// It is to be tried.
    Pending,
    /// It is under way; in the store that is pending.
    Sending,
}

impl State {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Pending | Self::Sending => 0,
            Self::Delivered => 1,
            Self::Dead => 2,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Pending),
            1 => Some(Self::Delivered),
            2 => Some(Self::Dead),
            _ => None,
        }
    }

    /// The name that users know.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Delivered => "delivered",
            Self::Pending => "pending",
            Self::Sending => "sending",
        }
    }

    /// Whether it is still to be delivered.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Sending)
    }
}

impl Message {
    /// Whether nothing of it is to be delivered any more.
    pub fn is_finished(&self) -> bool {
        self.deliveries.iter().all(|delivery| !delivery.state.is_open())
    }

    /// Its delivery to an endpoint.
    pub fn delivery(&self, endpoint: u32) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.endpoint == endpoint)
    }

    /// Its delivery to an endpoint, to be changed.
    pub fn delivery_mut(&mut self, endpoint: u32) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|delivery| delivery.endpoint == endpoint)
    }

    /// Puts a delivery in the place of the one to the same endpoint, or beside the others.
    pub fn put(&mut self, delivery: Delivery) {
        match self.delivery_mut(delivery.endpoint) {
            Some(known) => *known = delivery,
            None => {
                let mut all = std::mem::take(&mut self.deliveries).into_vec();
                all.push(delivery);
                self.deliveries = all.into();
            }
        }
    }

    /// Adds a try.
    pub fn add_attempt(&mut self, place: Place) {
        let mut all = std::mem::take(&mut self.attempts).into_vec();
        all.push(place);
        self.attempts = all.into();
    }

    /// Bytes of it on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.place.disk_bytes() + self.attempts.iter().map(|place| place.disk_bytes()).sum::<u64>()
    }
}
