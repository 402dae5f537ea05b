//! A routes file: what was understood is written and understood alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_route::pushpin::{Line, parse_line, parse_routes};
use waft_route::{Proto, RequestFacts, RouteOptions, Source, Table};

fuzz_target!(|input: &str| {
    let (routes, _problems) = parse_routes(input, "routes");
    for route in &routes {
        let line = Line(route).to_string();
        let again = parse_line(&line, &Source::default(), &RouteOptions::default());
        assert!(matches!(&again, Ok(Some(_))), "{line}\n{again:?}");
    }
    let (table, _problems) = Table::new(routes);
    for (host, path) in [(Some("example.com"), "/"), (Some("a.b:80"), "/a/b"), (None, "*")] {
        let facts = RequestFacts { host, path, proto: Proto::Ws, ..RequestFacts::default() };
        let _ = table.find(&facts);
    }
});
