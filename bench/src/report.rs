//! Tables: medians, ratios and what they are measured against, for the terminal and for a page.

use std::fmt::Write as _;
use std::time::Duration;

use crate::server::Kind;

/// One round's figures.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Microseconds of CPU or bytes of memory for one unit of work.
    pub cost: f64,
    /// Units in a second of wall time, if that says something.
    pub rate: Option<f64>,
    /// Middle and 99th percentile of a unit's latency.
    pub each: Option<(Duration, Duration)>,
    /// The same for the last receiver of a message.
    pub last: Option<(Duration, Duration)>,
    /// What a reader should know.
    pub remark: String,
}

/// The rounds of one server.
#[derive(Debug)]
pub struct Row {
    /// The server.
    pub kind: Kind,
    /// Its rounds.
    pub samples: Vec<Sample>,
    /// Why there are no more of them.
    pub failure: Option<String>,
}

/// One workload.
#[derive(Debug)]
pub struct Table {
    /// What was done.
    pub title: String,
    /// The unit of cost.
    pub unit: &'static str,
    /// What waft must not exceed.
    pub budget: Option<f64>,
    /// Servers in order.
    pub rows: Vec<Row>,
}

impl Table {
    /// The row of a server, made if it is missing.
    pub fn row(&mut self, kind: Kind) -> &mut Row {
        let at = self.rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
            self.rows.push(Row { kind, samples: Vec::new(), failure: None });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// The table as Markdown, which a terminal shows well enough.
    pub fn markdown(&self) -> String {
        let median_of = |kind: Kind| {
            self.rows.iter().find(|row| row.kind == kind).and_then(|row| median(row.samples.iter().map(|s| s.cost)))
        };
        let (bare, waft) = (median_of(Kind::Bare), median_of(Kind::Waft));
        let has = |pick: fn(&Sample) -> bool| self.rows.iter().flat_map(|row| &row.samples).any(pick);
        let (has_rate, has_each, has_last) =
            (has(|s| s.rate.is_some()), has(|s| s.each.is_some()), has(|s| s.last.is_some()));
        let mut head = vec!["server".to_owned(), self.unit.to_owned(), "range".to_owned(), "x bare".to_owned()];
        head.push("waft / it".to_owned());
        for (wanted, names) in
            [(has_rate, &["per s"][..]), (has_each, &["p50", "p99"]), (has_last, &["last p50", "last p99"])]
        {
            if wanted {
                head.extend(names.iter().map(|name| (*name).to_owned()));
            }
        }
        head.push("remarks".to_owned());
        let mut lines = vec![head];
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.kind);
        for row in rows {
            lines.push(cells(row, bare, waft, (has_rate, has_each, has_last)));
        }
        let mut out = format!("### {}\n\n", self.title);
        out.push_str(&aligned(&lines));
        if let (Some(budget), Some(waft)) = (self.budget, waft) {
            let verdict = if waft <= budget { "kept" } else { "exceeded" };
            let _ = writeln!(out, "\nBudget {}: {verdict}.", figure(budget));
        }
        out
    }
}

/// One line of a table.
fn cells(
    row: &Row,
    bare: Option<f64>,
    waft: Option<f64>,
    (has_rate, has_each, has_last): (bool, bool, bool),
) -> Vec<String> {
    let samples = &row.samples;
    let cost = median(samples.iter().map(|sample| sample.cost));
    let ratio = |of: Option<f64>, to: Option<f64>| match (of, to) {
        (Some(of), Some(to)) if to > 0.0 => format!("{:.2}", of / to),
        _ => "-".to_owned(),
    };
    let low = samples.iter().map(|sample| sample.cost).fold(f64::INFINITY, f64::min);
    let high = samples.iter().map(|sample| sample.cost).fold(0.0, f64::max);
    let mut cells = vec![
        label(row.kind).to_owned(),
        cost.map_or("failed".to_owned(), figure),
        if samples.len() > 1 { format!("{}-{}", figure(low), figure(high)) } else { "-".to_owned() },
        ratio(cost, bare),
        ratio(waft, cost),
    ];
    if has_rate {
        cells.push(
            median(samples.iter().filter_map(|sample| sample.rate)).map_or("-".to_owned(), |rate| format!("{rate:.0}")),
        );
    }
    let mut latency = |pick: fn(&Sample) -> Option<(Duration, Duration)>| {
        let picked: Vec<_> = samples.iter().filter_map(pick).collect();
        let time = |part: fn(&(Duration, Duration)) -> Duration| {
            median(picked.iter().map(|pair| part(pair).as_secs_f64())).map_or("-".to_owned(), duration)
        };
        cells.extend([time(|pair| pair.0), time(|pair| pair.1)]);
    };
    if has_each {
        latency(|sample| sample.each);
    }
    if has_last {
        latency(|sample| sample.last);
    }
    let mut remarks: Vec<&str> =
        samples.iter().map(|sample| sample.remark.as_str()).filter(|r| !r.is_empty()).collect();
    remarks.extend(row.failure.as_deref());
    remarks.dedup();
    cells.push(remarks.join("; ").replace('|', "/"));
    cells
}

/// How a server is called in tables.
fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Nginx => "nginx (nchan)",
        Kind::WaftTwo => "waft, 2 shards",
        other => other.name(),
    }
}

/// Columns of equal width.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let is_text = column == 0 || column + 1 == columns;
            let _ = if is_text { write!(out, "| {cell:<width$} ") } else { write!(out, "| {cell:>width$} ") };
        }
        out.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let is_text = column == 0 || column + 1 == columns;
                out.push_str(&format!("|{}{}", "-".repeat(width + 1), if is_text { "-" } else { ":" }));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The middle value.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => None,
        (length, half) if length % 2 == 1 => Some(values[half]),
        (_, half) => Some((values[half - 1] + values[half]) / 2.0),
    }
}

fn figure(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_medians_ratios_and_the_verdict_on_the_budget() {
        let mut table = Table { title: "work".to_owned(), unit: "us", budget: Some(6.0), rows: Vec::new() };
        for (kind, costs) in [(Kind::Bare, [4.0, 5.0, 6.0]), (Kind::Waft, [7.0, 5.5, 5.4])] {
            for cost in costs {
                let sample = Sample { cost, rate: None, each: None, last: None, remark: String::new() };
                table.row(kind).samples.push(sample);
            }
        }
        table.row(Kind::Pushpin).failure = Some("gone".to_owned());
        let text = table.markdown();
        assert!(text.contains("| waft    |   5.50 | 5.40-7.00 |   1.10 |      1.00 |"), "{text}");
        assert!(text.contains("| failed |"), "{text}");
        assert!(text.contains("Budget 6.00: kept."), "{text}");
    }
}
