//! What a plan will serve, for people.

use std::fmt::Write as _;

use waft_route::pushpin::TargetText;
use waft_route::{Condition, Proto, Route, TargetAddress};

use crate::plan::Plan;
use crate::settings::DEFAULT_SIG_KEY;
use crate::value::Listen;

/// A report on `plan`: addresses, routes, doors, warnings and notes. It shows no keys.
pub fn report(plan: &Plan) -> String {
    let mut out = String::new();
    let joined = |list: &[Listen]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "clients: {}", joined(&plan.server.listen));
    match plan.control.listen.as_slice() {
        [] => out.push_str("control: none\n"),
        list => {
            let tls = if plan.control.cert.is_some() { ", TLS" } else { "" };
            let auth = match (plan.control.token.is_some(), plan.control.jwt_key.is_some()) {
                (false, false) => "no authentication",
                (true, false) => "bearer token",
                (false, true) => "JSON web tokens",
                (true, true) => "bearer token or JSON web tokens",
            };
            let _ = writeln!(out, "control: {} ({auth}{tls})", joined(list));
        }
    }
    if let Some(listen) = &plan.metrics.listen {
        let _ = writeln!(out, "metrics: {listen}");
    }
    let zmq = &plan.zmq;
    let sub = if zmq.sub_connect { "sub, connected" } else { "sub" };
    let subs = zmq.sub.iter().map(|spec| (sub, spec));
    let doors = [("pull", &zmq.pull), ("stats", &zmq.stats), ("command", &zmq.command)];
    for (name, spec) in doors.into_iter().filter_map(|(name, spec)| Some((name, spec.as_ref()?))).chain(subs) {
        let _ = writeln!(out, "zeromq {name}: {spec}");
    }
    if let Some(spec) = &plan.mongrel2.control {
        let _ = writeln!(out, "mongrel2 control: {spec}");
    }
    if let Some(dir) = &plan.webhooks.dir {
        let _ = writeln!(out, "webhooks: {} ({} endpoints configured)", dir.display(), plan.webhooks.endpoints.len());
    }
    match &plan.routes_file {
        Some(path) => {
            let _ = writeln!(out, "routes ({}):", path.display());
        }
        None => out.push_str("routes:\n"),
    }
    for route in &plan.routes {
        let realm = route.options.realm.iter().map(|realm| format!("realm {realm}"));
        let targets: Vec<_> = realm.chain(route.targets.iter().map(|target| TargetText(target).to_string())).collect();
        let id = route.shown_id().map(|id| format!("{id}: ")).unwrap_or_default();
        let _ = writeln!(out, "  {id}{} -> {}", in_words(&route.condition), targets.join(", "));
    }
    for warning in warnings(plan) {
        let _ = writeln!(out, "warning: {warning}");
    }
    for note in &plan.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// What works, and should not stay so in production.
pub fn warnings(plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    if plan.routes.is_empty() {
        warnings.push("there are no routes: every request is answered with 502".to_owned());
    }
    if plan.routes.iter().any(|route| route.options.sig_key.as_deref() == Some(DEFAULT_SIG_KEY)) {
        let text = "requests to targets are signed with the key `changeme`, which everyone knows; set grip.sig_key";
        warnings.push(text.to_owned());
    }
    for route in plan.routes.iter().filter(|route| is_showcase(route)) {
        let what = route.targets.first().map(|target| target.address.to_string()).unwrap_or_default();
        let whom = in_words(&route.condition);
        warnings.push(format!("{whom} goes to the built-in `{what}` handler; name your backend as target instead"));
    }
    let is_open = plan.control.token.is_none() && plan.control.jwt_key.is_none();
    for listen in plan.control.listen.iter().filter(|listen| is_open && !is_local(listen)) {
        warnings.push(format!("the control API on {listen} lets everyone publish; set control.token"));
    }
    if plan.logging.level >= crate::value::Level::Debug {
        warnings.push("debugging details are logged; expect a lot of output".to_owned());
    }
    for target in plan.routes.iter().flat_map(|route| &route.targets).filter(|target| target.insecure) {
        warnings.push(format!("the certificate of target {} is not checked", target.address));
    }
    warnings
}

/// Whether a route sends everything to a built-in handler.
fn is_showcase(route: &Route) -> bool {
    let first = route.targets.first().map(|target| &target.address);
    matches!(first, Some(TargetAddress::Test | TargetAddress::Demo)) && route.condition == Condition::default()
}

fn is_local(listen: &Listen) -> bool {
    match &listen.endpoint {
        waft_net::Endpoint::Tcp(addr) => addr.ip().is_loopback(),
        waft_net::Endpoint::Unix { .. } => true,
    }
}

/// A condition as people say it.
fn in_words(condition: &Condition) -> String {
    let mut words = condition.host.to_string();
    if words.is_empty() {
        words.push_str("(by id)");
    }
    match (&condition.path_beg, &condition.path_pattern) {
        (None, None) => {}
        (Some(path), None) => {
            words.push_str(path);
            words.push('*');
        }
        (path, Some(pattern)) => {
            words.push_str(path.as_deref().unwrap_or_default());
            words.push_str(pattern.as_str());
        }
    }
    let proto = condition.proto.map(|proto| if proto == Proto::Ws { "WebSocket only" } else { "HTTP only" });
    let ssl = condition.ssl.map(|ssl| if ssl { "TLS only" } else { "without TLS only" });
    let shown = |shown| if shown { "with a client certificate" } else { "without a client certificate" };
    let mut parts: Vec<String> =
        [proto, ssl, condition.client_cert.map(shown)].into_iter().flatten().map(ToOwned::to_owned).collect();
    if !condition.methods.is_empty() {
        parts.push(condition.methods.join("|"));
    }
    for (kind, wanted) in [("header", &condition.headers), ("query", &condition.query)] {
        parts.extend(wanted.iter().map(|named| {
            let value = named.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
            format!("{kind} {}{value}", named.name)
        }));
    }
    if parts.is_empty() { words } else { format!("{words} ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{Sources, load};

    fn check(text: &str, expected: &str) {
        let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
        let plan = load(&sources, &|_| Ok(text.to_owned())).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(report(&plan), expected, "{text}");
    }

    #[test]
    fn the_default_plan_is_told_with_its_warnings() {
        check(
            "",
            "clients: 7999\ncontrol: 127.0.0.1:5561 (no authentication)\nroutes:\n  * -> demo\n\
             warning: requests to targets are signed with the key `changeme`, which everyone knows; set grip.sig_key\n\
             warning: * goes to the built-in `demo` handler; name your backend as target instead\n",
        );
    }

    #[test]
    fn everything_served_is_told_and_no_key() {
        check(
            "[server]\nlisten = [\"80\", \"443?tls\"]\ntls_certs = \"c\"\n\
             [control]\nlisten = [\"5561\"]\ntoken = \"hush\"\ncert = \"c\"\nkey = \"k\"\n\
             [grip]\nsig_key = \"hush\"\n[metrics]\nlisten = \"9100\"\n[zmq]\npull = \"tcp://a:1\"\nsub = [\"tcp://b:1\"]\n\
             [[route]]\nid = \"api\"\nhost = \"a.b\"\npath = \"/v1\"\nproto = \"ws\"\nssl = true\nmethods = [\"GET\"]\n\
             match_headers = [\"X: 1\"]\nmatch_query = [\"q\"]\ntargets = [\"c:80,over_http\", \"d:443,ssl,insecure\"]\n",
            "clients: 80, 443?tls\ncontrol: 5561 (bearer token, TLS)\nmetrics: 9100\nzeromq pull: tcp://a:1\n\
             zeromq sub: tcp://b:1\nroutes:\n  api: a.b/v1* (WebSocket only, TLS only, GET, header X=1, query q) -> \
             c:80,over_http, d:443,ssl,insecure\nwarning: the certificate of target d:443 is not checked\n",
        );
    }

    #[test]
    fn what_is_open_or_empty_is_warned_of() {
        check(
            "route = []\n[control]\nlisten = [\"5561\", \"unix:/c\", \"[::1]:5\"]\n[logging]\nlevel = \"debug\"\n",
            "clients: 7999\ncontrol: 5561, unix:/c, [::1]:5 (no authentication)\nroutes:\n\
             warning: there are no routes: every request is answered with 502\n\
             warning: the control API on 5561 lets everyone publish; set control.token\n\
             warning: debugging details are logged; expect a lot of output\n",
        );
    }
}
