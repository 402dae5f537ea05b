//! `waft check --probe URL`: asks a target to open a WebSocket by HTTP, as a route with `over_http` would, and says in
//! plain words what is wrong with its answer.

mod judge;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;
use waft_config::Plan;
use waft_grip::sig::SigningKey;
use waft_outbound::policy::Policy;
use waft_outbound::target::{Host, Scheme, Target};
use waft_outbound::{Call, CallError, Client, Limits, Lookup, RequestBody};
use waft_route::{Route, TargetAddress};
use waft_websocket::over_http::codec::{Event, MEDIA_TYPE};

use self::judge::{Answer, Finding, Level, Trouble};
use crate::say;

/// How long a target may take to answer. waft itself would wait longer; a person would not.
const LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read: what waft takes by default.
const BODY_MAX: usize = 2_000_000;

/// The target answered, and not as it should.
const WRONG: u8 = 1;
/// The target gave no answer at all.
const NO_ANSWER: u8 = 3;

/// Asks, judges, and tells. `plan` is given where there is a configuration to compare with.
pub(crate) fn run(url: &str, plan: &Plan, is_configured: bool) -> Result<ExitCode> {
    let mut target = Target::parse(url.as_bytes()).with_context(|| format!("`{url}` cannot be asked"))?;
    // The URL that a client would open means the same here.
    target.scheme = if target.scheme.is_tls() { Scheme::Https } else { Scheme::Http };
    let route = route_to(plan, &target);
    let mut findings = if is_configured { about_route(route, &target) } else { Vec::new() };
    say(&format!("asked {} with the event OPEN\n", shown(&target)));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, ask(&target, &headers(route, plan)?));
    let code = match &outcome {
        Ok(answer) => {
            say(&answer.summary());
            findings.extend(judge::answer(answer));
            WRONG
        }
        Err(trouble) => {
            findings.push(judge::trouble(trouble));
            NO_ANSWER
        }
    };
    findings.iter().for_each(|finding| say(&finding.to_string()));
    if findings.iter().any(|finding| finding.level == Level::Problem) {
        return Ok(ExitCode::from(code));
    }
    if !is_configured {
        say(&format!("In waft the target is written `{}`.\n", entry(&target)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The route that leads to this place, one that takes events first.
fn route_to<'a>(plan: &'a Plan, place: &Target) -> Option<&'a Route> {
    let leads = |route: &&Route, events: bool| {
        route.targets.iter().any(|target| leads_to(&target.address, place) && (target.over_http || !events))
    };
    plan.routes.iter().find(|route| leads(route, true)).or_else(|| plan.routes.iter().find(|route| leads(route, false)))
}

fn leads_to(address: &TargetAddress, place: &Target) -> bool {
    match (address, &place.host) {
        (TargetAddress::Http { host, port }, Host::Name(name)) => {
            *port == place.port && host.eq_ignore_ascii_case(name)
        }
        (TargetAddress::Http { host, port }, Host::Address(ip)) => {
            *port == place.port && host.trim_matches(['[', ']']).parse() == Ok(*ip)
        }
        _ => false,
    }
}

/// What is to be said of the configuration.
fn about_route(route: Option<&Route>, place: &Target) -> Vec<Finding> {
    let Some(route) = route else {
        return vec![Finding::note(
            format!("no route of this configuration leads to {}", place.authority()),
            format!("add one with the target `{}`", entry(place)),
        )];
    };
    let mut findings = Vec::new();
    let reaches = |over_http| {
        route.targets.iter().any(|target| leads_to(&target.address, place) && target.over_http == over_http)
    };
    if !reaches(true) {
        findings.push(Finding::problem(
            format!(
                "route `{}` leads here without over_http: waft opens a WebSocket of its own to the target",
                route.id
            ),
            format!("write the target as `{}`", entry(place)),
        ));
    }
    if route.options.no_grip {
        findings.push(Finding::problem(
            format!("route `{}` has no_grip: targets can neither subscribe nor send control messages", route.id),
            "remove no_grip from the route".to_owned(),
        ));
    }
    findings
}

fn entry(place: &Target) -> String {
    let tls = if place.scheme.is_tls() { ",ssl" } else { "" };
    let host = match &place.host {
        Host::Address(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Address(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    };
    format!("{host}:{},over_http{tls}", place.port)
}

fn shown(place: &Target) -> String {
    format!("POST {}://{}{}", place.scheme.as_str(), place.authority(), place.path)
}

/// The request's fields, as waft sends them for a client without any of its own.
fn headers(route: Option<&Route>, plan: &Plan) -> Result<Vec<(Bytes, Bytes)>> {
    let id = fastrand::u128(..);
    let (key, issuer) = match route {
        Some(route) => (route.options.sig_key.as_deref(), route.options.sig_iss.as_str()),
        None => (Some(plan.grip.sig_key.as_str()), plan.grip.sig_iss.as_str()),
    };
    let mut headers = vec![
        ("Sec-WebSocket-Version", "13".to_owned()),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()),
        ("Sec-WebSocket-Extensions", "grip".to_owned()),
    ];
    let key = key.filter(|_| !issuer.is_empty()).map(|text| SigningKey::parse(text, std::path::Path::new(".")));
    if let Some(key) = key.transpose().context("the signing key cannot be used")?.flatten() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        headers.push(("Grip-Sig", key.sign(issuer, now).context("the request cannot be signed")?));
    }
    headers.extend([
        ("Grip-Feature", waft_grip::feature::FEATURES.to_owned()),
        ("Accept", MEDIA_TYPE.to_owned()),
        ("Connection-Id", format!("probe-{id:032x}")),
        ("Content-Type", MEDIA_TYPE.to_owned()),
    ]);
    Ok(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// Sends OPEN and, if that was accepted, DISCONNECT, so that nothing of the probe stays.
async fn ask(place: &Target, headers: &[(Bytes, Bytes)]) -> Result<Answer, Trouble> {
    let client = Client::new(Limits { connect_timeout: LIMIT / 2, ..Limits::default() }, Lookup::System);
    let answer = send(&client, place, headers, Event::Open).await?;
    if judge::is_accepted(&answer) {
        // Whether that is answered makes no difference.
        let _ = send(&client, place, headers, Event::Disconnect).await;
    }
    Ok(answer)
}

async fn send(client: &Client, place: &Target, headers: &[(Bytes, Bytes)], event: Event) -> Result<Answer, Trouble> {
    let mut body = Vec::new();
    event.encode(&mut body);
    // Who calls the command may call anything.
    let mut call = Call::new("POST", place.clone(), Arc::new(Policy::open()));
    call.headers = headers.to_vec();
    call.body = RequestBody::Whole(body.into());
    let place = place.authority();
    match timeout(LIMIT, exchange(client, call)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble { place, error: Some(error) }),
        Err(_late) => Err(Trouble { place, error: None }),
    }
}

async fn exchange(client: &Client, call: Call) -> Result<Answer, CallError> {
    let mut response = client.call(call).await?;
    let mut body = Vec::new();
    while let Some(piece) = response.body.piece().await? {
        body.extend_from_slice(&piece);
        if body.len() > BODY_MAX {
            break;
        }
    }
    Ok(Answer { status: response.status, reason: response.reason, headers: response.headers, body: body.into() })
}
