//! What happens to the channels of realms, for those who listen to many at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use waft_hub::{ListenerCounts, Mode, Observer, Ordered};
use waft_realm::ChannelKind;

use super::forms;
use super::tenant::Realms;
use crate::payload::Payload;
use crate::subscribe::Item;

/// Hears of every item under the lock of its channel, and notes those that patterns show.
pub(crate) struct Watch {
    realms: Arc<Realms>,
    /// Who else wants to hear.
    other: OnceLock<Arc<dyn Observer<Payload>>>,
    /// Items that patterns show, in the order of their channels.
    waiting: Mutex<VecDeque<Item>>,
    is_waiting: AtomicBool,
    /// Whoever shows items does it alone, or their order would be lost.
    showing: Mutex<()>,
}

impl Watch {
    pub(crate) fn new(realms: Arc<Realms>) -> Self {
        Self {
            realms,
            other: OnceLock::new(),
            waiting: Mutex::default(),
            is_waiting: AtomicBool::new(false),
            showing: Mutex::default(),
        }
    }

    /// Tells another of everything too.
    pub(crate) fn pass_on_to(&self, other: Arc<dyn Observer<Payload>>) {
        // There is one who starts the process, and who sets this once.
        let _first = self.other.set(other);
    }

    /// Publishes what waits to the patterns that show it, with a payload that stands for the item.
    pub(crate) fn show(&self, publish: impl Fn(Arc<str>, Payload)) {
        while self.is_waiting.load(Ordering::Acquire) {
            let _alone = lock(&self.showing);
            let next = {
                let mut waiting = lock(&self.waiting);
                let next = waiting.pop_front();
                self.is_waiting.store(!waiting.is_empty(), Ordering::Release);
                next
            };
            let Some(item) = next else { continue };
            let Some(tenant) = self.realms.of(&item.channel) else { continue };
            for pattern in tenant.patterns().showing(forms::own_name(&item.channel)) {
                publish(tenant.pattern_name(&pattern).into(), Payload::view(Arc::clone(&item)));
            }
        }
    }
}

impl Observer<Payload> for Watch {
    fn subscribed(&self, channel: &Arc<str>, subscribed: bool) {
        self.realms.note(channel, subscribed);
        if let Some(other) = self.other.get() {
            other.subscribed(channel, subscribed);
        }
    }

    fn counted(&self, channel: &Arc<str>, mode: Mode, listeners: u32, lingering: bool) {
        if let Some(other) = self.other.get() {
            other.counted(channel, mode, listeners, lingering);
        }
    }

    fn ordered(&self, item: &Arc<Ordered<Payload>>, listeners: ListenerCounts) {
        if let Some(other) = self.other.get() {
            other.ordered(item, listeners);
        }
        // A view has no value of its own, so that nothing shows it again.
        if item.payload.formats.json_object.is_none() {
            return;
        }
        let shown = self
            .realms
            .of(&item.channel)
            .is_some_and(|tenant| !tenant.patterns().showing(forms::own_name(&item.channel)).is_empty());
        // What waft itself publishes has rules of its own, which a pattern does not ask.
        let shown = shown && !ChannelKind::of(forms::own_name(&item.channel)).is_reserved();
        if shown {
            let mut waiting = lock(&self.waiting);
            waiting.push_back(Arc::clone(item));
            self.is_waiting.store(true, Ordering::Release);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a half-done change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("waiting", &lock(&self.waiting).len()).finish_non_exhaustive()
    }
}
