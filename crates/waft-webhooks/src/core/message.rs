//! What is kept in memory of a message: where it lies, and how far its deliveries are.

use std::ops::{Deref, DerefMut};

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
    pub deliveries: Few<Delivery>,
    /// Where the tries lie, in their order.
    pub attempts: Few<Place>,
}

const _: () = assert!(size_of::<Message>() <= 56);

/// A list that mostly has one entry, which then needs no memory beside that of its owner.
#[derive(Clone, Debug, Default)]
pub enum Few<T> {
    /// Several entries. Boxed, as a vector in place would make every list as large as three words.
    Many(Box<Vec<T>>),
    /// Nothing.
    #[default]
    None,
    /// One entry.
    One(T),
}

impl<T> Few<T> {
    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(entry),
            Self::One(first) => Self::Many(Box::new(vec![first, entry])),
            Self::Many(mut all) => {
                all.push(entry);
                Self::Many(all)
            }
        };
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut all: Vec<T>) -> Self {
        match all.len() {
            0 => Self::None,
            1 => all.pop().map_or(Self::None, Self::One),
            _ => Self::Many(Box::new(all)),
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Many(all) => all,
            Self::None => &[],
            Self::One(entry) => std::slice::from_ref(entry),
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Many(all) => all,
            Self::None => &mut [],
            Self::One(entry) => std::slice::from_mut(entry),
        }
    }
}

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
            None => self.deliveries.push(delivery),
        }
    }

    /// Adds a try.
    pub fn add_attempt(&mut self, place: Place) {
        self.attempts.push(place);
    }

    /// Bytes of it on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.place.disk_bytes() + self.attempts.iter().map(|place| place.disk_bytes()).sum::<u64>()
    }
}
