//! The table that finds the route of a request.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use waft_mongrel2::HostRule;

use crate::condition::{Condition, HostPattern, NamedValue, Proto};
use crate::problem::Problem;
use crate::route::Route;

/// The longest host that can be listed: what DNS allows, and a little more.
const HOST_BYTES_MAX: usize = 255;

/// What a request is judged by.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The Host header or authority, with or without a port, in any case. `None`: the request had none.
    pub host: Option<&'a str>,
    /// The path in its percent-encoded form, without the query.
    pub path: &'a str,
    /// The kind of request.
    pub proto: Proto,
    /// Whether the client side is TLS.
    pub ssl: bool,
    /// Whether the client has proved itself by a certificate.
    pub client_cert: bool,
    /// The method.
    pub method: &'a str,
    /// The query in its percent-encoded form, without the question mark.
    pub query: &'a str,
    /// The headers; looked at only by routes with conditions on headers.
    pub headers: &'a dyn Headers,
}

impl Default for RequestFacts<'_> {
    fn default() -> Self {
        Self {
            host: None,
            path: "/",
            proto: Proto::Http,
            ssl: false,
            client_cert: false,
            method: "GET",
            query: "",
            headers: &NoHeaders,
        }
    }
}

impl fmt::Debug for RequestFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts")
            .field("host", &self.host)
            .field("path", &self.path)
            .field("proto", &self.proto)
            .field("ssl", &self.ssl)
            .field("client_cert", &self.client_cert)
            .field("method", &self.method)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

/// The headers of a request, as far as a route needs them.
pub trait Headers {
    /// Whether there is a header `name` (in any case) with this value, or with any if `None`.
    fn has(&self, name: &str, value: Option<&str>) -> bool;
}

/// A request without headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn has(&self, _name: &str, _value: Option<&str>) -> bool {
        false
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for &[(N, V)] {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.iter().any(|(n, v)| {
            n.as_ref().eq_ignore_ascii_case(name) && value.is_none_or(|value| value.as_bytes() == v.as_ref())
        })
    }
}

/// Routes, arranged so that a lookup allocates nothing and looks only at the routes of one host.
///
/// The routes of the exact host are asked; if the host is not listed, those of the longest
/// `*.suffix` or pattern that fits; if there is none, those of `*`. A listed host never falls back.
/// Among the routes of a host one with `proto` goes before one without, then the longer `path_beg`,
/// then one with a pattern, then one with `ssl`, then the one with more conditions on client certificate, method,
/// headers and query, then the earlier. A path whose beginning belongs to a pattern that it does not
/// match never falls back either.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Arc<Route>>,
    by_host: HashMap<Box<str>, Rules>,
    by_suffix: HashMap<Box<str>, Rules>,
    by_pattern: Vec<Matching>,
    any: Rules,
    by_id: HashMap<Arc<str>, Option<Arc<Route>>>,
}

/// The routes of one host, best first.
type Rules = Vec<Arc<Route>>;

/// The routes of the hosts that match a pattern.
#[derive(Debug)]
struct Matching {
    text: String,
    rule: HostRule,
    rules: Rules,
}

impl Matching {
    /// Bytes of a host that fit literally: the more, the better the rule.
    fn literal(&self) -> usize {
        match &self.rule {
            HostRule::Domain(domain) => domain.len(),
            HostRule::Pattern { suffix, .. } => suffix.len(),
        }
    }
}

impl Table {
    /// Arranges `routes`. One that can never be used is left out and told.
    pub fn new(routes: Vec<Route>) -> (Self, Vec<Problem>) {
        let mut table = Self::default();
        let mut problems = Vec::new();
        let mut seen: HashSet<Condition> = HashSet::new();
        for route in routes {
            if let Some(text) = unusable(&route, &seen) {
                problems.push(Problem::skipped(&route.source, text));
                continue;
            }
            if let HostPattern::Matching(text) = &route.condition.host
                && let Err(error) = table.know(text)
            {
                problems.push(Problem::skipped(&route.source, format!("host {text}: {error}")));
                continue;
            }
            if route.condition.host != HostPattern::None {
                seen.insert(route.condition.clone());
            }
            table.add(Arc::new(route));
        }
        // The longest literal part is asked first; equals stay in their order.
        table.by_pattern.sort_by_key(|matching| std::cmp::Reverse(matching.literal()));
        let patterns = table.by_pattern.iter_mut().map(|matching| &mut matching.rules);
        let lists = table.by_host.values_mut().chain(table.by_suffix.values_mut()).chain(patterns);
        for rules in lists.chain([&mut table.any]) {
            // The sort is stable: equals stay in the order of the file.
            rules.sort_by_key(|route| std::cmp::Reverse(rank(&route.condition)));
        }
        (table, problems)
    }

    /// Takes in a host pattern, if it is not known already.
    fn know(&mut self, text: &str) -> Result<(), waft_mongrel2::PatternError> {
        if self.by_pattern.iter().all(|known| known.text != text) {
            let rule = HostRule::parse(text)?;
            self.by_pattern.push(Matching { text: text.to_owned(), rule, rules: Rules::new() });
        }
        Ok(())
    }

    fn add(&mut self, route: Arc<Route>) {
        match &route.condition.host {
            HostPattern::Any => self.any.push(route.clone()),
            HostPattern::Domain(domain) => {
                self.by_host.entry(domain.as_str().into()).or_default().push(route.clone());
                self.by_suffix.entry(domain.as_str().into()).or_default().push(route.clone());
            }
            HostPattern::Matching(text) => {
                if let Some(known) = self.by_pattern.iter_mut().find(|known| known.text == *text) {
                    known.rules.push(route.clone());
                }
            }
            HostPattern::Exact(host) => self.by_host.entry(host.as_str().into()).or_default().push(route.clone()),
            HostPattern::None => {}
            HostPattern::Wildcard(suffix) => {
                self.by_suffix.entry(suffix.as_str().into()).or_default().push(route.clone());
            }
        }
        if route.explicit_id {
            // An id that several routes share names none of them.
            let first = Some(route.clone());
            self.by_id.entry(route.id.clone()).and_modify(|known| *known = None).or_insert(first);
        }
        self.routes.push(route);
    }

    /// The route of a request.
    pub fn find(&self, facts: &RequestFacts<'_>) -> Option<&Arc<Route>> {
        // The beginning of a path that a pattern was tried for: only routes of the same one are left.
        let mut claimed = None;
        self.rules(facts.host).iter().find(|route| {
            let condition = &route.condition;
            let begins = condition.path_beg.as_deref().unwrap_or_default();
            if claimed.is_some_and(|claimed| claimed != begins) || !fits(condition, facts) {
                return false;
            }
            let Some(pattern) = &condition.path_pattern else { return true };
            claimed = Some(begins);
            facts.path.strip_prefix(begins).is_some_and(|rest| pattern.matches(rest.as_bytes()))
        })
    }

    /// The route with this explicit id, if it is the only one.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Route>> {
        self.by_id.get(id)?.as_ref()
    }

    /// Every route in use, in the order in which they were given.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    fn rules(&self, host: Option<&str>) -> &Rules {
        if self.by_host.is_empty() && self.by_suffix.is_empty() && self.by_pattern.is_empty() {
            return &self.any;
        }
        let mut buffer = [0; HOST_BYTES_MAX];
        let Some(host) = host.and_then(|host| lower_case(bare_host(host), &mut buffer)) else { return &self.any };
        if let Some(rules) = self.by_host.get(host) {
            return rules;
        }
        let mut rest = host;
        let below = loop {
            let Some((_label, suffix)) = rest.split_once('.') else { break None };
            if let Some(rules) = self.by_suffix.get(suffix) {
                // The dot before it is literal, too.
                break Some((suffix.len() + 1, rules));
            }
            rest = suffix;
        };
        let literal = below.map_or(0, |(length, _)| length);
        let better = self.by_pattern.iter().take_while(|matching| below.is_none() || matching.literal() > literal);
        let matching = better.into_iter().find(|matching| matching.rule.matches(host));
        matching.map(|matching| &matching.rules).or(below.map(|(_, rules)| rules)).unwrap_or(&self.any)
    }
}

/// Why a route cannot be used.
fn unusable(route: &Route, seen: &HashSet<Condition>) -> Option<&'static str> {
    if route.targets.is_empty() && route.options.realm.is_none() {
        return Some("must specify condition and at least one target");
    }
    match &route.condition.host {
        HostPattern::None if !route.explicit_id => Some("condition has no domain or id"),
        HostPattern::Domain(host) | HostPattern::Exact(host) | HostPattern::Wildcard(host)
            if host.len() > HOST_BYTES_MAX =>
        {
            Some("condition has a host of more than 255 bytes")
        }
        HostPattern::None => None,
        _ if seen.contains(&route.condition) => Some("skipping duplicate condition"),
        _ => None,
    }
}

/// Orders conditions of one host: the larger is asked first.
fn rank(condition: &Condition) -> (bool, usize, bool, bool, usize) {
    let more = usize::from(condition.client_cert.is_some())
        + usize::from(!condition.methods.is_empty())
        + condition.headers.len()
        + condition.query.len();
    let path = condition.path_beg.as_ref().map_or(0, String::len);
    (condition.proto.is_some(), path, condition.path_pattern.is_some(), condition.ssl.is_some(), more)
}

fn fits(condition: &Condition, facts: &RequestFacts<'_>) -> bool {
    condition.proto.is_none_or(|proto| proto == facts.proto)
        && condition.ssl.is_none_or(|ssl| ssl == facts.ssl)
        && condition.client_cert.is_none_or(|client_cert| client_cert == facts.client_cert)
        && condition.path_beg.as_ref().is_none_or(|beg| facts.path.starts_with(beg.as_str()))
        && (condition.methods.is_empty() || condition.methods.iter().any(|method| method == facts.method))
        && condition.headers.iter().all(|wanted| facts.headers.has(&wanted.name, wanted.value.as_deref()))
        && condition.query.iter().all(|wanted| has_query(facts.query, wanted))
}

fn has_query(query: &str, wanted: &NamedValue) -> bool {
    query.split('&').any(|item| {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        !item.is_empty() && name == wanted.name && wanted.value.as_deref().is_none_or(|wanted| wanted == value)
    })
}

/// `host` without port, brackets and the dot of the root.
fn bare_host(host: &str) -> &str {
    if let Some((address, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    let host = match host.split_once(':') {
        // More than one colon: an IPv6 address that lacks its brackets.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// `host` in lower case, written into `buffer`. `None` if it is empty or too long to be listed.
fn lower_case<'b>(host: &str, buffer: &'b mut [u8; HOST_BYTES_MAX]) -> Option<&'b str> {
    let room = buffer.get_mut(..host.len()).filter(|room| !room.is_empty())?;
    room.copy_from_slice(host.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pushpin::parse_routes;
    use crate::target::{Target, TargetAddress};

    /// A table of lines; the id of each route is its line number.
    fn table(lines: &[&str]) -> Table {
        let (mut routes, problems) = parse_routes(&lines.join("\n"), "routes");
        assert!(problems.is_empty(), "{problems:?}");
        for route in &mut routes {
            route.id = route.source.line.to_string().into();
        }
        let (table, problems) = Table::new(routes);
        assert!(problems.is_empty(), "{problems:?}");
        table
    }

    fn check(table: &Table, facts: RequestFacts<'_>, expected: u32) {
        let line = table.find(&facts).map_or(0, |route| route.source.line);
        assert_eq!(line, expected, "{facts:?}");
    }

    fn at<'a>(host: &'a str, path: &'a str) -> RequestFacts<'a> {
        RequestFacts { host: Some(host), path, ..RequestFacts::default() }
    }

    #[test]
    fn the_host_is_compared_in_any_case_and_without_port() {
        let table = table(&["example.com test", "::1 test", "* test", "*.example.com test", "*.a.example.com test"]);
        for (host, line) in [
            ("example.com", 1),
            ("EXAMPLE.com", 1),
            ("example.com:8080", 1),
            ("example.com.", 1),
            ("[::1]:8080", 2),
            ("[::1]", 2),
            ("::1", 2),
            ("[::2]:80", 3),
            ("example.org", 3),
            ("", 3),
            (":80", 3),
            ("www.example.com", 4),
            ("b.c.example.com", 4),
            ("notexample.com", 3),
            ("b.a.example.com", 5),
            ("a.example.com", 4),
            ("é.example.com", 4),
            ("[", 3),
        ] {
            check(&table, at(host, "/"), line);
        }
        check(&table, RequestFacts::default(), 3);
        check(&table, at(&"a".repeat(300), "/"), 3);
    }

    #[test]
    fn a_listed_host_never_falls_back() {
        let table = table(&["example.com,path_beg=/a test", "* test", "*.example.com,path_beg=/a test"]);
        check(&table, at("example.com", "/a"), 1);
        check(&table, at("example.com", "/b"), 0);
        check(&table, at("www.example.com", "/b"), 0);
        check(&table, at("example.org", "/b"), 2);
    }

    #[test]
    fn the_best_rule_wins_whatever_the_order() {
        let lines = [
            "* test",
            "*,path_beg=/a test",
            "*,path_beg=/ab test",
            "*,ssl=yes test",
            "*,proto=ws test",
            "*,ssl=yes,path_beg=/a test",
        ];
        let mut order: Vec<usize> = (0..lines.len()).collect();
        for _ in 0..lines.len() {
            order.rotate_left(1);
            let table = table(&order.iter().map(|n| lines[*n]).collect::<Vec<_>>());
            let line = |n: usize| u32::try_from(order.iter().position(|m| *m == n).unwrap() + 1).unwrap();
            let tls = |path| RequestFacts { ssl: true, ..at("h", path) };
            check(&table, at("h", "/"), line(0));
            check(&table, at("h", "/ac"), line(1));
            check(&table, at("h", "/abc"), line(2));
            check(&table, tls("/"), line(3));
            check(&table, tls("/abc"), line(2));
            check(&table, tls("/ac"), line(5));
            check(&table, RequestFacts { proto: Proto::Ws, ..tls("/abc") }, line(4));
        }
    }

    #[test]
    fn domains_and_host_patterns_go_by_their_literal_part() {
        let hosts = [".one.test", "(.*).wild.test", "(a+).one.test", "*.b.wild.test", "*"];
        let routes = (1..).zip(hosts).map(|(line, host)| {
            let condition = Condition { host: HostPattern::parse(host), ..Condition::default() };
            let mut route = Route::new(condition, vec![Target::new(TargetAddress::Test)]);
            route.source.line = line;
            route
        });
        let (table, problems) = Table::new(routes.collect());
        assert!(problems.is_empty(), "{problems:?}");
        for (host, line) in [
            ("one.test", 1),
            ("x.ONE.test:80", 1),
            ("evil-one.test", 5),
            ("test", 5),
            ("x.wild.test", 2),
            ("wild.test", 5),
            // Both end in `.one.test`; what a domain says is asked for first.
            ("aa.one.test", 1),
            ("x.b.wild.test", 4),
        ] {
            check(&table, at(host, "/"), line);
        }
    }

    #[test]
    fn a_path_whose_beginning_belongs_to_a_pattern_never_falls_back() {
        let rules = ["/", "/a/(x)", "/b/", "/b/(zz)$", r"/a/(\d+)$"];
        let routes = (1..).zip(rules).map(|(line, rule)| {
            let rule = waft_mongrel2::PathRule::parse(rule).unwrap();
            let condition =
                Condition { path_beg: Some(rule.prefix), path_pattern: rule.pattern, ..Condition::default() };
            let mut route = Route::new(condition, vec![Target::new(TargetAddress::Test)]);
            route.source.line = line;
            route
        });
        let (table, problems) = Table::new(routes.collect());
        assert!(problems.is_empty(), "{problems:?}");
        for (path, line) in
            [("/", 1), ("/a/xy", 2), ("/a/12", 5), ("/a/y", 0), ("/a", 1), ("/b/zz", 4), ("/b/z", 3), ("/c", 1)]
        {
            check(&table, at("h", path), line);
        }
    }

    #[test]
    fn routes_without_a_domain_are_found_by_id_alone() {
        let (routes, _) = parse_routes("id=a test\n*,id=b test\nx,id=c test\ny,id=c test\nz test\n", "routes");
        let (table, problems) = Table::new(routes);
        assert!(problems.is_empty(), "{problems:?}");
        let line = |id| table.by_id(id).map(|route| route.source.line);
        assert_eq!(line("a"), Some(1));
        assert_eq!(line("b"), Some(2));
        assert_eq!(line("c"), None, "two routes share it");
        assert_eq!(line("z,*,*,*"), None, "a derived id selects nothing");
        check(&table, at("h", "/"), 2);
        assert_eq!(table.routes().len(), 5);
    }

    #[test]
    fn a_second_route_with_the_same_condition_is_left_out() {
        let (routes, _) = parse_routes("*,path_beg=/a test\n*,path_beg=/a,debug demo\n", "routes");
        let (table, problems) = Table::new(routes);
        assert_eq!(
            problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["routes:2: skipping duplicate condition"]
        );
        check(&table, at("h", "/a"), 1);
    }

    #[test]
    fn a_route_that_can_never_be_used_is_told() {
        let target = || vec![Target::new(TargetAddress::Test)];
        let host = |host| Condition { host, ..Condition::default() };
        let (table, problems) = Table::new(vec![
            Route::new(Condition::default(), Vec::new()),
            Route::new(host(HostPattern::None), target()),
            Route::new(host(HostPattern::Exact("a".repeat(256))), target()),
        ]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(table.routes().is_empty());
    }

    #[test]
    fn a_client_certificate_narrows_a_route() {
        let target = || vec![Target::new(TargetAddress::Test)];
        let route = |client_cert| Route::new(Condition { client_cert, ..Condition::default() }, target());
        let table = Table::new(vec![route(None), route(Some(true))]).0;
        let found = |client_cert| {
            let facts = RequestFacts { client_cert, ..RequestFacts::default() };
            table.find(&facts).map(|route| route.id.to_string())
        };
        assert_eq!(found(true).as_deref(), Some("*,*,*,*,client_cert=yes"));
        assert_eq!(found(false).as_deref(), Some("*,*,*,*"));
    }

    #[test]
    fn methods_headers_and_query_narrow_a_route() {
        let wanted = |name: &str, value: Option<&str>| {
            vec![NamedValue { name: name.to_owned(), value: value.map(ToOwned::to_owned) }]
        };
        let conditions = [
            Condition::default(),
            Condition { methods: vec!["POST".to_owned(), "PUT".to_owned()], ..Condition::default() },
            Condition { headers: wanted("x-a", Some("1")), ..Condition::default() },
            Condition { query: wanted("v", None), headers: wanted("x-b", None), ..Condition::default() },
            Condition { query: wanted("v", Some("2")), ..Condition::default() },
        ];
        let (mut routes, mut n) = (Vec::new(), 0);
        for condition in conditions {
            n += 1;
            let mut route = Route::new(condition, vec![Target::new(TargetAddress::Test)]);
            route.source.line = n;
            routes.push(route);
        }
        let (table, problems) = Table::new(routes);
        assert!(problems.is_empty(), "{problems:?}");
        let plain = RequestFacts::default();
        check(&table, plain, 1);
        check(&table, RequestFacts { method: "PUT", ..plain }, 2);
        check(&table, RequestFacts { headers: &[("X-A", "1")].as_slice(), ..plain }, 3);
        check(&table, RequestFacts { headers: &[("X-A", "2")].as_slice(), ..plain }, 1);
        check(&table, RequestFacts { query: "a=1&v", headers: &[("X-B", "")].as_slice(), ..plain }, 4);
        check(&table, RequestFacts { query: "v=2", ..plain }, 5);
        check(&table, RequestFacts { query: "v=3&av=2", ..plain }, 1);
    }

    proptest! {
        #[test]
        fn any_request_is_judged_without_panic(host in any::<String>(), path in any::<String>(), query in any::<String>()) {
            let table = table(&["a.b test", "*.b test", "* test"]);
            let facts = RequestFacts { host: Some(&host), path: &path, query: &query, ..RequestFacts::default() };
            prop_assert!(table.find(&facts).is_some());
        }
    }
}
