//! The grammar of Pushpin's routes file.
//!
//! One route a line: `condition[,param]... target[,param]... [target...]`. All of Pushpin's
//! parameters are read. On top of them hosts may be `*.example.com`, and targets `demo` and
//! `unix:/path`.

mod lex;
mod line;
mod read;

use std::sync::Arc;

pub use line::{Line, TargetText};

use crate::problem::{Problem, Source};
use crate::route::{Route, RouteOptions};
use crate::target::Target;

/// Reads a whole routes file. `file_name` is what problems are shown with.
pub fn parse_routes(text: &str, file_name: &str) -> (Vec<Route>, Vec<Problem>) {
    parse_routes_with(text, file_name, &RouteOptions::default())
}

/// Like [`parse_routes`], with the options that hold for routes that do not set them.
pub fn parse_routes_with(text: &str, file_name: &str, defaults: &RouteOptions) -> (Vec<Route>, Vec<Problem>) {
    let file: Arc<str> = file_name.into();
    let mut routes = Vec::new();
    let mut problems = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let source = Source { file: file.clone(), line: number };
        match parse_line(line, &source, defaults) {
            Ok(Some((route, notices))) => {
                routes.push(route);
                problems.extend(notices);
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    (routes, problems)
}

/// Reads one line, as given with `--route`. `None` if it is blank or a comment.
///
/// # Errors
/// Why the line is no route.
pub fn parse_line(
    line: &str,
    source: &Source,
    defaults: &RouteOptions,
) -> Result<Option<(Route, Vec<Problem>)>, Problem> {
    let sections = lex::sections(line).map_err(|error| Problem::skipped(source, error.to_string()))?;
    if sections.is_empty() {
        return Ok(None);
    }
    let mut notices = Vec::new();
    let route = read::route(&sections, source, defaults, &mut notices)
        .map_err(|error| Problem::skipped(source, error.to_string()))?;
    let notices = notices.into_iter().map(|text| Problem::notice(source, text)).collect();
    Ok(Some((route, notices)))
}

/// Reads one target with its parameters, as in `localhost:8000,over_http`.
///
/// # Errors
/// Why the text is no target. An unknown parameter is an error here.
pub fn parse_target(text: &str) -> Result<Target, Problem> {
    let refused = |text: String| Problem::skipped(&Source::default(), text);
    let sections = lex::sections(text).map_err(|error| refused(error.to_string()))?;
    let [section] = sections.as_slice() else { return Err(refused("target bad format".to_owned())) };
    let mut notices = Vec::new();
    let target = read::target(section, &mut notices).map_err(|error| refused(error.to_string()))?;
    notices.pop().map_or(Ok(target), |notice| Err(refused(notice)))
}

#[cfg(test)]
mod tests;
