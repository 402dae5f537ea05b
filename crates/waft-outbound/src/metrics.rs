//! What calls to the outside are counted by, for whoever reports it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::{Mode, Rule};

/// Counters of calls, shared by all clients they were given to.
#[derive(Debug, Default)]
pub struct Metrics {
    under_way: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    connections: AtomicU64,
    reuses: AtomicU64,
    redirects: AtomicU64,
    lookups: AtomicU64,
    websockets: AtomicU64,
    reported: AtomicU64,
    denials: [AtomicU64; Rule::ALL.len()],
}

/// A number with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The name in the manner of Prometheus.
    pub name: &'static str,
    /// What is counted, a sentence.
    pub help: &'static str,
    /// Whether it goes up alone.
    pub is_counter: bool,
    /// The name of the label; none if there is one value, without a label.
    pub label: Option<&'static str>,
    /// The values, each with its label's value.
    pub values: Vec<(String, u64)>,
}

/// Counts a call for as long as it waits for its response.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Metrics>);

impl Metrics {
    /// Everything that is counted, as it is now.
    pub fn samples(&self) -> Vec<Sample> {
        let one = |name, help, is_counter, number: &AtomicU64| Sample {
            name,
            help,
            is_counter,
            label: None,
            values: vec![(String::new(), number.load(Ordering::Relaxed))],
        };
        let denials = Rule::ALL.iter().zip(&self.denials);
        vec![
            one("waft_outbound_under_way", "Calls to the outside that wait for a response.", false, &self.under_way),
            one("waft_outbound_calls_total", "Calls to the outside.", true, &self.calls),
            one("waft_outbound_failures_total", "Calls that got no response.", true, &self.failures),
            one("waft_outbound_connections_total", "Connections tried for calls.", true, &self.connections),
            one("waft_outbound_reuses_total", "Requests on a connection that was kept.", true, &self.reuses),
            one("waft_outbound_redirects_total", "Redirects followed.", true, &self.redirects),
            one("waft_outbound_lookups_total", "Names whose addresses were asked for.", true, &self.lookups),
            one("waft_outbound_websockets_total", "WebSockets opened to the outside.", true, &self.websockets),
            Sample {
                name: "waft_outbound_denials_total",
                help: "What the policy refused, or would have.",
                is_counter: true,
                label: Some("rule"),
                values: denials.map(|(rule, count)| (rule.to_string(), count.load(Ordering::Relaxed))).collect(),
            },
            one(
                "waft_outbound_reports_total",
                "Denials that were logged alone, as the policy only reports.",
                true,
                &self.reported,
            ),
        ]
    }

    /// [`Metrics::samples`] in the text format of Prometheus.
    pub fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        for Sample { name, help, is_counter, label, values } in self.samples() {
            let kind = if is_counter { "counter" } else { "gauge" };
            write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n")?;
            for (of, value) in values {
                match label {
                    None => writeln!(out, "{name} {value}")?,
                    Some(label) => writeln!(out, "{name}{{{label}=\"{of}\"}} {value}")?,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        add(&self.calls);
        add(&self.under_way);
        UnderWay(Arc::clone(self))
    }

    pub(crate) fn failed(&self) {
        add(&self.failures);
    }

    pub(crate) fn connecting(&self) {
        add(&self.connections);
    }

    pub(crate) fn reused(&self) {
        add(&self.reuses);
    }

    pub(crate) fn redirected(&self) {
        add(&self.redirects);
    }

    pub(crate) fn looked_up(&self) {
        add(&self.lookups);
    }

    pub(crate) fn websocket(&self) {
        add(&self.websockets);
    }

    pub(crate) fn denied(&self, rule: Rule, mode: Mode) {
        let place = Rule::ALL.iter().position(|known| *known == rule);
        if let Some(counter) = place.and_then(|place| self.denials.get(place)) {
            add(counter);
        }
        if mode == Mode::ReportOnly {
            add(&self.reported);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_written_with_help_type_and_label() {
        let metrics = Arc::new(Metrics::default());
        let under_way = metrics.begin();
        metrics.denied(Rule::Address, Mode::Enforce);
        metrics.denied(Rule::Address, Mode::ReportOnly);
        let mut text = String::new();
        metrics.write(&mut text).unwrap();
        for line in [
            "# TYPE waft_outbound_under_way gauge\nwaft_outbound_under_way 1\n",
            "# TYPE waft_outbound_calls_total counter\nwaft_outbound_calls_total 1\n",
            "waft_outbound_denials_total{rule=\"egress-address-refused\"} 2\n",
            "waft_outbound_denials_total{rule=\"egress-userinfo-refused\"} 0\n",
            "waft_outbound_reports_total 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        drop(under_way);
        assert!(metrics.samples().iter().any(|sample| sample.values == [(String::new(), 0)]));
    }
}
