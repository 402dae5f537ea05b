//! The text format of Prometheus, version 0.0.4.
//!
//! Written by hand, as the client library of Prometheus writes the OpenMetrics format, in which the counters that
//! Pushpin's users have on their dashboards could not keep their names.

use std::fmt::{Display, Write};

use waft_outbound::Sample;

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in the text format, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// A counter without labels.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, help, "counter");
        self.sample(name, "", value);
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, help, "gauge");
        self.sample(name, "", value);
    }

    /// A counter with a value for each value of one label.
    pub(crate) fn counters<V: Display>(&mut self, name: &str, help: &str, label: &str, values: &[(&str, V)]) {
        self.describe(name, help, "counter");
        self.labelled(name, label, values);
    }

    /// A gauge with a value for each value of one label.
    pub(crate) fn gauges<V: Display>(&mut self, name: &str, help: &str, label: &str, values: &[(&str, V)]) {
        self.describe(name, help, "gauge");
        self.labelled(name, label, values);
    }

    /// A counter or gauge of calls to the outside.
    pub(crate) fn sample_of(&mut self, sample: &Sample) {
        let Sample { name, help, is_counter, label, values } = sample;
        self.describe(name, help, if *is_counter { "counter" } else { "gauge" });
        for (of, value) in values {
            let labels = label.map_or_else(String::new, |label| format!("{{{label}=\"{of}\"}}"));
            self.sample(name, &labels, value);
        }
    }

    /// A histogram: `counts` has one more element than `bounds`, for what lies above the last of them.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, bounds: &[f64], counts: &[u64], sum: f64) {
        self.describe(name, help, "histogram");
        let mut below: u64 = 0;
        let ends = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (end, count) in ends.zip(counts) {
            below = below.wrapping_add(*count);
            self.put(format_args!("{name}_bucket{{le=\"{end}\"}} {below}\n"));
        }
        self.put(format_args!("{name}_sum {sum}\n{name}_count {below}\n"));
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn labelled<V: Display>(&mut self, name: &str, label: &str, values: &[(&str, V)]) {
        for (of, value) in values {
            self.sample(name, &format!("{{{label}=\"{of}\"}}"), value);
        }
    }

    fn describe(&mut self, name: &str, help: &str, kind: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        self.put(format_args!("{name}{labels} {value}\n"));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        self.text.write_fmt(text).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_with_help_type_and_labels() {
        let mut out = Exposition::default();
        out.counter("a_total", "As.", 3);
        out.gauge("b", "Bs.", -1);
        out.gauges("c", "Cs.", "mode", &[("x", 1), ("y", 2)]);
        out.histogram("d_seconds", "Ds.", &[0.00005, 0.5], &[1, 0, 2], 1.25);
        assert_eq!(
            out.finish(),
            "# HELP a_total As.\n# TYPE a_total counter\na_total 3\n\
             # HELP b Bs.\n# TYPE b gauge\nb -1\n\
             # HELP c Cs.\n# TYPE c gauge\nc{mode=\"x\"} 1\nc{mode=\"y\"} 2\n\
             # HELP d_seconds Ds.\n# TYPE d_seconds histogram\n\
             d_seconds_bucket{le=\"0.00005\"} 1\nd_seconds_bucket{le=\"0.5\"} 1\nd_seconds_bucket{le=\"+Inf\"} 3\n\
             d_seconds_sum 1.25\nd_seconds_count 3\n"
        );
    }
}
