//! What changes between two plans, and whether a reload can bring it.

use std::collections::BTreeMap;
use std::fmt;

use waft_route::{Condition, Route};

use crate::plan::Plan;

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// With the reload. Requests under way end as they began.
    Applied,
    /// With the next start; until then the old value counts.
    NeedsRestart,
}

/// One difference between two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is different: `section.key`, or a route.
    pub what: String,
    /// The old value, unless it is absent or secret.
    pub old: Option<String>,
    /// The new value, unless it is absent or secret.
    pub new: Option<String>,
    /// When it takes effect.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match (&self.old, &self.new) {
            (None, None) => f.write_str(" changed")?,
            (old, new) => {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
                write!(f, " changed from {} to {}", shown(old), shown(new))?;
            }
        }
        match self.effect {
            Effect::Applied => Ok(()),
            Effect::NeedsRestart => f.write_str("; needs a restart"),
        }
    }
}

/// Sections that are used up when the process starts.
const SECTIONS_NEED_RESTART: [&str; 6] = ["control", "log", "metrics", "stats", "webhooks", "zmq"];

/// Keys of those sections that a reload brings all the same.
const KEYS_APPLIED: [&str; 4] = ["control.token", "control.jwt_key", "metrics.pushpin_names", "metrics.prefix"];

/// Keys of other sections that are used up when the process starts.
const KEYS_NEED_RESTART: [&str; 13] = [
    "mongrel2.access_log",
    "mongrel2.control",
    "mongrel2.pid_file",
    "mongrel2.queue_max",
    "server.listen",
    "server.shards",
    "limits.queue_items",
    "limits.queue_bytes",
    "limits.queue_total_bytes",
    "logging.level",
    "logging.format",
    "logging.file",
    "workers.name",
];

/// Keys whose values are shown nowhere.
const SECRET: [&str; 7] = [
    "control.token",
    "control.jwt_key",
    "control.key",
    "grip.sig_key",
    "grip.upstream_key",
    "webhooks.apps",
    "webhooks.endpoints",
];

/// The differences between two plans, in the order of the reference, routes last.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut values = BTreeMap::new();
    old.each_section(&mut |section| {
        values.insert(section.name, section.values.clone());
    });
    let mut changes = Vec::new();
    new.each_section(&mut |section| {
        let before = values.get(section.name);
        for key in section.keys {
            let what = format!("{}.{}", section.name, key.name);
            let (old, new) = (before.and_then(|values| values.get(key.name)), section.values.get(key.name));
            if old == new {
                continue;
            }
            let show = |value: Option<&toml::Value>| {
                value.filter(|_| !SECRET.contains(&what.as_str())).map(ToString::to_string)
            };
            let (old, new) = (show(old), show(new));
            let needs_restart = !KEYS_APPLIED.contains(&what.as_str())
                && (SECTIONS_NEED_RESTART.contains(&section.name) || KEYS_NEED_RESTART.contains(&what.as_str()));
            let effect = if needs_restart { Effect::NeedsRestart } else { Effect::Applied };
            changes.push(Change { what, old, new, effect });
        }
    });
    route_changes(old, new, &mut changes);
    realm_changes(old, new, &mut changes);
    changes
}

/// Routes are told apart by their condition and, where they have no domain, by their id.
fn route_changes(old: &Plan, new: &Plan, changes: &mut Vec<Change>) {
    let key = |route: &Route| (route.condition.clone(), route.shown_id().cloned());
    let same = |a: &Route, b: &Route| match &a.condition {
        Condition { host: waft_route::HostPattern::None, .. } => key(a) == key(b),
        condition => *condition == b.condition,
    };
    let mut push = |route: &Route, text: &str| {
        changes.push(Change {
            what: format!("route {} {text}", route.id),
            old: None,
            new: None,
            effect: Effect::Applied,
        });
    };
    for route in &new.routes {
        match old.routes.iter().find(|other| same(other, route)) {
            None => push(route, "(new)"),
            Some(other) if other != route => push(route, "(its options or targets)"),
            Some(_) => {}
        }
    }
    for route in &old.routes {
        if !new.routes.iter().any(|other| same(other, route)) {
            push(route, "(removed)");
        }
    }
}

/// Realms are told apart by their names; what they hold is secret in part.
fn realm_changes(old: &Plan, new: &Plan, changes: &mut Vec<Change>) {
    let mut push = |name: &str, text: &str| {
        let what = format!("realm {name} {text}");
        changes.push(Change { what, old: None, new: None, effect: Effect::Applied });
    };
    for realm in &new.realms {
        match old.realms.iter().find(|other| other.name == realm.name) {
            None => push(&realm.name, "(new)"),
            Some(other) if other != realm => push(&realm.name, "(its keys, rules or limits)"),
            Some(_) => {}
        }
    }
    for realm in old.realms.iter().filter(|realm| !new.realms.iter().any(|other| other.name == realm.name)) {
        push(&realm.name, "(removed)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{Sources, load};

    fn check(old: &str, new: &str, expected: &[&str]) {
        let plan = |text: &str| {
            let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
            load(&sources, &|_| Ok(text.to_owned())).unwrap_or_else(|mistakes| panic!("{mistakes}"))
        };
        let changes: Vec<_> = diff(&plan(old), &plan(new)).iter().map(ToString::to_string).collect();
        assert_eq!(changes, expected, "{old}\nto\n{new}");
    }

    #[test]
    fn equal_plans_have_no_difference() {
        check("", "", &[]);
        check("", "[server]\nshards = 0\n", &[]);
        check("[[route]]\ntargets = [\"a:1\"]\n", "# moved by a line\n\n[[route]]\ntargets = [\"a:1\"]\n", &[]);
    }

    #[test]
    fn keys_are_told_with_what_it_takes() {
        check("", "[server]\nshards = 2\n", &["server.shards changed from 0 to 2; needs a restart"]);
        check("", "[limits]\nqueue_items = 5\n", &["limits.queue_items changed from 1000 to 5; needs a restart"]);
        check("[zmq]\npull = \"a\"\n", "", &["zmq.pull changed from \"a\" to nothing; needs a restart"]);
        check("", "[limits]\nsubscriptions_max = 5\n", &["limits.subscriptions_max changed from 20 to 5"]);
        check("", "[control]\ntoken = \"hush\"\n", &["control.token changed"]);
    }

    #[test]
    fn routes_are_told_as_new_changed_and_removed() {
        let old = "[[route]]\nhost = \"a\"\ntargets = [\"a:1\"]\n[[route]]\nhost = \"b\"\ntargets = [\"a:1\"]\n";
        let new = "[[route]]\nhost = \"a\"\ntargets = [\"a:2\"]\n[[route]]\nhost = \"c\"\ntargets = [\"a:1\"]\n";
        check(
            old,
            new,
            &[
                "route a,*,*,* (its options or targets) changed",
                "route c,*,*,* (new) changed",
                "route b,*,*,* (removed) changed",
            ],
        );
        check("[[realm]]\n", "[[realm]]\nkeys = [\"hush\"]\n", &["realm default (its keys, rules or limits) changed"]);
        check("route = []", "[[route]]\nhost = \"\"\nid = \"x\"\ntargets = [\"a:1\"]\n", &["route x (new) changed"]);
    }
}
