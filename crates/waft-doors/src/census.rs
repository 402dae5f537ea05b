//! The visits that are there now, and how many of each route.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waft_gateway::{Visit, VisitEvent};

/// A minute, the unit in which time of connections is counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Something to be told of a visit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is there.
    Present(Arc<Visit>),
    /// It is over.
    Gone(Arc<Visit>),
}

/// Visits of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) now: u64,
    /// The most at one time since the last report.
    pub(crate) peak: u64,
    /// Minutes that began since the last report.
    pub(crate) minutes: u64,
    /// Those of WebSockets since they were last told, the first minute of each left out.
    pub(crate) ws_minutes: u64,
}

/// The visits that are there.
#[derive(Debug, Default)]
pub(crate) struct Census {
    visits: HashMap<Box<str>, Entry>,
    pub(crate) routes: HashMap<Option<Arc<str>>, Presence>,
}

#[derive(Debug)]
struct Entry {
    visit: Arc<Visit>,
    /// When it is to be told of again.
    tell: Instant,
    /// When its next minute begins.
    minute: Instant,
}

impl Census {
    /// Takes in what happened; what is to be told is put behind `news`. Whoever is there is told of again after `repeat`.
    pub(crate) fn take_in(&mut self, now: Instant, event: VisitEvent, repeat: Duration, news: &mut Vec<News>) {
        match event {
            VisitEvent::Began(visit) => {
                let presence = self.routes.entry(visit.route.clone()).or_default();
                presence.now += 1;
                presence.peak = presence.peak.max(presence.now);
                presence.minutes += 1;
                let entry = Entry { visit: Arc::clone(&visit), tell: now + repeat, minute: now + MINUTE };
                self.visits.insert(visit.id.clone(), entry);
                news.push(News::Present(visit));
            }
            VisitEvent::Held(visit) => {
                if let Some(entry) = self.visits.get_mut(&visit.id) {
                    entry.tell = now + repeat;
                }
                news.push(News::Present(visit));
            }
            VisitEvent::Ended(visit) => {
                if self.visits.remove(&visit.id).is_some() {
                    let presence = self.routes.entry(visit.route.clone()).or_default();
                    presence.now = presence.now.saturating_sub(1);
                }
                news.push(News::Gone(visit));
            }
        }
    }

    /// Counts minutes and finds whoever is to be told of again: to be called once a second.
    pub(crate) fn tick(&mut self, now: Instant, repeat: Duration, news: &mut Vec<News>) {
        for entry in self.visits.values_mut() {
            if entry.minute <= now {
                entry.minute += MINUTE;
                let presence = self.routes.entry(entry.visit.route.clone()).or_default();
                presence.minutes += 1;
                presence.ws_minutes += u64::from(entry.visit.kind == waft_gateway::VisitKind::Ws);
            }
            if entry.tell <= now {
                entry.tell = now + repeat;
                news.push(News::Present(Arc::clone(&entry.visit)));
            }
        }
    }

    /// The visit of this name, if it is there.
    pub(crate) fn find(&self, id: &str) -> Option<&Arc<Visit>> {
        self.visits.get(id).map(|entry| &entry.visit)
    }
}

#[cfg(test)]
mod tests {
    use waft_gateway::VisitKind;

    use super::*;

    fn visit(id: &str, kind: VisitKind) -> Arc<Visit> {
        Arc::new(Visit { id: id.into(), kind, route: Some("r".into()), peer: None, secure: false })
    }

    const REPEAT: Duration = Duration::from_secs(90);

    #[test]
    fn a_visit_is_told_when_it_begins_is_held_is_due_and_ends() {
        let (mut census, mut news, now) = (Census::default(), Vec::new(), Instant::now());
        let visit = visit("1", VisitKind::Http);
        let event = |event: fn(Arc<Visit>) -> VisitEvent| event(Arc::clone(&visit));
        census.take_in(now, event(VisitEvent::Began), REPEAT, &mut news);
        census.take_in(now + Duration::from_secs(1), event(VisitEvent::Held), REPEAT, &mut news);
        census.tick(now + Duration::from_secs(90), REPEAT, &mut news);
        assert_eq!(news.len(), 2);
        census.tick(now + Duration::from_secs(91), REPEAT, &mut news);
        assert!(census.find("1").is_some());
        census.take_in(now + Duration::from_secs(92), event(VisitEvent::Ended), REPEAT, &mut news);
        assert_eq!((census.find("1"), news.len()), (None, 4));
        assert_eq!(news.pop(), Some(News::Gone(Arc::clone(&visit))));
    }

    #[test]
    fn peaks_and_begun_minutes_are_counted_by_route() {
        let (mut census, mut news, now) = (Census::default(), Vec::new(), Instant::now());
        for id in ["1", "2"] {
            census.take_in(now, VisitEvent::Began(visit(id, VisitKind::Ws)), REPEAT, &mut news);
        }
        census.take_in(now, VisitEvent::Ended(visit("2", VisitKind::Ws)), REPEAT, &mut news);
        census.tick(now + Duration::from_secs(59), REPEAT, &mut news);
        let route: Option<Arc<str>> = Some("r".into());
        assert_eq!(census.routes[&route], Presence { now: 1, peak: 2, minutes: 2, ws_minutes: 0 });
        census.tick(now + Duration::from_secs(60), REPEAT, &mut news);
        assert_eq!(census.routes[&route], Presence { now: 1, peak: 2, minutes: 3, ws_minutes: 1 });
    }
}
