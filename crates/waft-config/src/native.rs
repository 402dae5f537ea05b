//! `waft.toml`, the environment and flags into a plan.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};
use waft_route::{Route, Source, pushpin};

use crate::mistake::{Mistake, Mistakes};
use crate::plan::{File, Plan};
use crate::suggest::improve;

/// How files are read; tests give their own.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Where a native configuration comes from, the weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file. `None`: the defaults.
    pub file: Option<PathBuf>,
    /// The environment. `WAFT_SECTION__KEY` sets `section.key`; everything else is passed over.
    pub env: Vec<(String, String)>,
    /// `section.key=value`, as given with `--set`. The last one wins.
    pub sets: Vec<String>,
    /// Lines of a routes file, as given with `--route`. If there are any, they are all the routes.
    pub routes: Vec<String>,
}

/// Reads a native configuration.
///
/// A value in the environment or a flag is written as in the file, without the quotes if it is a
/// text; lists may be written with commas.
///
/// # Errors
/// Everything that is wrong with it, not only the first.
pub fn load(sources: &Sources, read: ReadFile<'_>) -> Result<Plan, Mistakes> {
    let mut merging = Merging::default();
    let mut name = "configuration".to_owned();
    if let Some(path) = &sources.file {
        name = path.display().to_string();
        let text = read(path).map_err(|error| Mistakes::one(&name, format!("cannot be read: {error}")))?;
        merging.take_file(&text, &name)?;
    }
    let mut env: Vec<_> = sources.env.iter().filter_map(|(name, value)| Some((name, key_of(name)?, value))).collect();
    env.sort();
    for (name, key, value) in env {
        merging.take(&key, value, name);
    }
    for set in &sources.sets {
        match set.split_once('=') {
            // The value may be a secret: a mistake shows the key alone.
            Some((key, value)) => merging.take(key.trim(), value.trim(), &format!("--set {}", key.trim())),
            None => merging.refuse(&format!("--set {set}"), "write it as section.key=value"),
        }
    }
    merging.finish(&name, sources, read)
}

/// The key that a variable of the environment sets. One without `__` may be anybody's (container
/// platforms make such names from those of services), except for the one key that has no section.
fn key_of(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("WAFT_")?.to_ascii_lowercase();
    if name == "routes_file" {
        return Some(name);
    }
    let (section, key) = name.split_once("__")?;
    Some(format!("{section}.{key}"))
}

/// Sources on their way to become a plan.
#[derive(Default)]
struct Merging {
    merged: Table,
    /// Where each route of the file begins.
    route_sources: Vec<Source>,
    mistakes: Vec<Mistake>,
}

impl Merging {
    fn refuse(&mut self, place: &str, text: impl Into<String>) {
        self.mistakes.push(Mistake { place: place.to_owned(), text: text.into() });
    }

    /// Takes in the file. Each key is judged alone, so that every mistake is told with its place.
    fn take_file(&mut self, text: &str, name: &str) -> Result<(), Mistakes> {
        let lines = Lines(text);
        let syntax = |error: toml::de::Error| {
            Mistakes::one(lines.place(name, error.span().unwrap_or_default()), error.message().trim_end())
        };
        let spans = Spans::of(text).map_err(syntax)?;
        let table: Table = text.parse().map_err(syntax)?;
        for (section, value) in table {
            let place = |path: &[&str]| lines.place(name, spans.find(path));
            match value {
                Value::Table(keys) => {
                    for (key, value) in keys {
                        let place = place(&[&section, &key]);
                        self.judge_and_put(&format!("{section}.{key}"), value, &place);
                    }
                }
                Value::Array(entries) if section == "route" => {
                    for (n, entry) in entries.iter().enumerate() {
                        let n = n.to_string();
                        let line = lines.line(spans.find(&["route", &n]).start);
                        self.route_sources.push(Source { file: name.into(), line });
                        for (key, value) in entry.as_table().into_iter().flatten() {
                            let one =
                                Value::Array(vec![Value::Table(Table::from_iter([(key.clone(), value.clone())]))]);
                            if let Err(text) = judge("route", one) {
                                let place = lines.place(name, spans.find(&["route", &n, key]));
                                self.refuse(&place, about(&format!("route.{key}"), &text));
                            }
                        }
                    }
                    self.merged.insert(section, Value::Array(entries));
                }
                value => {
                    let place = place(&[&section]);
                    self.judge_and_put(&section, value, &place);
                }
            }
        }
        Ok(())
    }

    fn judge_and_put(&mut self, key: &str, value: Value, place: &str) {
        match judge(key, value.clone()) {
            Ok(()) => self.put(key, value),
            Err(text) => self.refuse(place, about(key, &text)),
        }
    }

    /// Takes in a text from outside a file: TOML if it is that, else a string or a list.
    fn take(&mut self, key: &str, text: &str, place: &str) {
        let string = Value::String(text.to_owned());
        let list =
            || text.split(',').map(|item| Value::String(item.trim().to_owned())).filter(|i| i.as_str() != Some(""));
        let toml = format!("it = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("it"));
        let mut refused = None;
        for candidate in toml.into_iter().chain([string, Value::Array(list().collect())]) {
            match judge(key, candidate.clone()) {
                Ok(()) => {
                    if key == "route" {
                        self.route_sources.clear();
                    }
                    return self.put(key, candidate);
                }
                Err(text) => refused = refused.or(Some(text)),
            }
        }
        self.refuse(place, about(key, &refused.unwrap_or_default()));
    }

    fn put(&mut self, key: &str, value: Value) {
        match key.split_once('.') {
            Some((section, key)) => {
                let section = self.merged.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Some(table) = section.as_table_mut() {
                    table.insert(key.to_owned(), value);
                }
            }
            None => {
                self.merged.insert(key.to_owned(), value);
            }
        }
    }

    fn finish(mut self, name: &str, sources: &Sources, read: ReadFile<'_>) -> Result<Plan, Mistakes> {
        if !self.mistakes.is_empty() {
            return Err(Mistakes(self.mistakes));
        }
        let file = File::deserialize(Value::Table(std::mem::take(&mut self.merged)))
            .map_err(|error| Mistakes::one(name, improve(error.message())))?;
        let entries = file.route.clone();
        let mut plan = file.into_plan();
        let base = plan.base_options();
        if entries.is_some() && plan.routes_file.is_some() {
            self.refuse(name, "both [[route]] and routes_file are set; keep one of them");
        }
        if let Some(path) = &mut plan.routes_file {
            // Beside the file that names it.
            let dir = sources.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
            *path = dir.join(&path);
        }
        match (&plan.routes_file.clone(), entries) {
            _ if !sources.routes.is_empty() => {
                plan.routes_file = None;
                plan.take_lines(pushpin::parse_routes_with(&sources.routes.join("\n"), "--route", &base));
            }
            (Some(path), _) => match read(path) {
                Ok(text) => {
                    plan.take_lines(pushpin::parse_routes_with(&text, &path.display().to_string(), &base));
                }
                Err(error) => self.refuse(name, format!("routes_file {}: cannot be read: {error}", path.display())),
            },
            (None, Some(entries)) => {
                let sources = self.route_sources.iter().cloned().chain(std::iter::repeat(Source::default()));
                let routes: Vec<Route> =
                    entries.iter().zip(sources).map(|(entry, source)| entry.to_route(&base, source)).collect();
                plan.take_routes(routes, &mut self.mistakes);
            }
            (None, None) => plan.routes = plan.demo_routes(),
        }
        plan.judge(name, &mut self.mistakes);
        if self.mistakes.is_empty() { Ok(plan) } else { Err(Mistakes(self.mistakes)) }
    }
}

/// Judges one key alone, in a file with nothing else.
fn judge(key: &str, value: Value) -> Result<(), String> {
    let value = match key.split_once('.') {
        Some((section, key)) => (section, Value::Table(Table::from_iter([(key.to_owned(), value)]))),
        None => (key, value),
    };
    let file = Table::from_iter([(value.0.to_owned(), value.1)]);
    File::deserialize(Value::Table(file)).map(|_fine| ()).map_err(|error| improve(error.message()))
}

/// `text`, which names its key unless it is about the key itself.
fn about(key: &str, text: &str) -> String {
    if text.starts_with("unknown key") { text.to_owned() } else { format!("{key}: {text}") }
}

/// Lines and columns of a text.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn line(&self, at: usize) -> u32 {
        let before = self.0.get(..at).unwrap_or(self.0);
        u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX)
    }

    fn place(&self, name: &str, span: Range<usize>) -> String {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{name}:{}:{column}", self.line(span.start))
    }
}

/// Where each key of a file stands.
#[derive(Default)]
struct Spans(HashMap<String, Range<usize>>);

impl Spans {
    fn of(text: &str) -> Result<Self, toml::de::Error> {
        let mut spans = Self::default();
        spans.add_table("", toml::de::DeTable::parse(text)?.get_ref());
        Ok(spans)
    }

    fn add_table(&mut self, path: &str, table: &toml::de::DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{path}/{}", key.get_ref());
            self.0.insert(path.clone(), key.span());
            match value.get_ref() {
                toml::de::DeValue::Table(inner) => self.add_table(&path, inner),
                toml::de::DeValue::Array(items) => {
                    for (n, item) in items.iter().enumerate() {
                        let path = format!("{path}/{n}");
                        self.0.insert(path.clone(), item.span());
                        if let toml::de::DeValue::Table(inner) = item.get_ref() {
                            self.add_table(&path, inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The span of the longest part of `path` that is known.
    fn find(&self, path: &[&str]) -> Range<usize> {
        (1..=path.len())
            .rev()
            .filter_map(|end| self.0.get(&format!("/{}", path.get(..end)?.join("/"))))
            .next()
            .cloned()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
