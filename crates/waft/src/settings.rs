//! From the plan to what the gateway and its services take.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use waft_config::{ForwardedProto, OutboundRules, Plan, Resolver, StatsFormat};
use waft_doors::{ControlPort, DoorsConfig, StatsConfig};
use waft_gateway::{
    Forward, ForwardedFor, HandlerSettings, Limits, NetworkFilters, Outside, Pace, SchemeHeaders, Settings,
    UploadStore, WebSocketSettings, WorkerPace, WorkerRole, WorkerSettings,
};
use waft_grip::sig::{SigningKey, VerifyingKey};
use waft_http1::HeadLimits;
use waft_hub::HubLimits;
use waft_net::{Endpoint, QueueLimits};
use waft_outbound::Lookup;
use waft_outbound::policy::{Exception, Mode, Pattern, Policy, Profile};
use waft_webhooks::core::{CoreLimits, EndpointSettings, TlsSettings};
use waft_webhooks::{ConfiguredApp, ConfiguredEndpoint, WebhooksConfig};

/// "Never" for limits that are switched off.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// What the gateway is to do.
pub(crate) fn from_plan(plan: &Plan) -> Result<Settings> {
    let table = plan.table();
    let mut signing_keys = std::collections::HashMap::new();
    for route in table.routes() {
        let Some(text) = route.options.sig_key.as_deref().filter(|_| !route.options.sig_iss.is_empty()) else {
            continue;
        };
        let key = SigningKey::parse(text, Path::new("."))
            .with_context(|| format!("the signing key of route `{}` cannot be used", route.id))?;
        if let Some(key) = key {
            signing_keys.insert(std::sync::Arc::clone(&route.id), key);
        }
    }
    let upstream_key = match plan.grip.upstream_key.as_deref() {
        Some(text) => VerifyingKey::parse(text, Path::new(".")).context("grip.upstream_key cannot be used")?,
        None => None,
    };
    Ok(Settings {
        table,
        realms: realms(plan)?,
        signing_keys,
        upstream_key,
        forward: forward(plan),
        limits: limits(plan),
        pace: pace(plan),
        websocket: WebSocketSettings { message_max: plan.websocket.message_max.as_usize() as u64 },
        outside: outside(plan).into(),
        handlers: handlers(plan),
        workers: workers(plan),
        update_on_first_subscription: plan.grip.update_on_first_subscription,
        accept_route_header: plan.forward.accept_route_header,
        cross_origin: plan.defaults.aco,
        sockjs_url: plan.sockjs.client_url.clone(),
        access_log: plan.logging.access,
        access_file: None,
        log_user_agent: plan.logging.user_agent,
        drain_timeout: plan.server.drain_timeout.0,
    })
}

/// The realms, with the keys of their files.
fn realms(plan: &Plan) -> Result<Vec<waft_realm::Realm>> {
    let realm = |entry: &waft_config::RealmEntry| {
        let mut realm = entry.to_realm().map_err(anyhow::Error::msg)?;
        if let Some(path) = &entry.jwks_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("realm `{}`: {} cannot be read", entry.name, path.display()))?;
            let keys = waft_realm::keys_of_set(&text)
                .with_context(|| format!("realm `{}`: {} cannot be used", entry.name, path.display()))?;
            realm.client_keys.extend(keys);
        }
        Ok(realm)
    };
    plan.realms.iter().map(realm).collect()
}

fn forward(plan: &Plan) -> Forward {
    let rule = |rule: &waft_config::ForwardedFor| ForwardedFor {
        truncate: rule.truncate.map(|keep| keep as usize),
        append: rule.append,
    };
    Forward {
        x_forwarded_for: rule(&plan.forward.x_forwarded_for),
        x_forwarded_for_trusted: rule(&plan.forward.x_forwarded_for_trusted),
        set_scheme: match plan.forward.set_x_forwarded_proto {
            ForwardedProto::Off => SchemeHeaders::None,
            ForwardedProto::ProtoOnly => SchemeHeaders::Proto,
            ForwardedProto::On => SchemeHeaders::Both,
        },
        accept_scheme: plan.forward.accept_x_forwarded_proto,
        cdn_loop: plan.forward.cdn_loop.clone().unwrap_or_default(),
        orig_headers_need_mark: plan.forward.orig_headers_need_mark.clone(),
    }
}

fn outside(plan: &Plan) -> Outside {
    let outbound = &plan.outbound;
    let listens = plan.server.listen.iter().chain(&plan.control.listen);
    let own = listens.filter_map(|listen| match &listen.endpoint {
        Endpoint::Tcp(address) if !address.ip().is_unspecified() => Some(*address),
        _ => None,
    });
    let mode = if outbound.report_only { Mode::ReportOnly } else { Mode::Enforce };
    let self_addresses = own.chain(outbound.self_addresses.iter().copied()).collect();
    let profile = Profile::Hardened {
        exceptions: outbound.exceptions.iter().map(|exception| exception.exception().clone()).collect(),
        deny: outbound.deny.iter().map(|pattern| Pattern::parse(pattern)).collect(),
    };
    let hardened = std::sync::Arc::new(Policy { profile, mode, self_addresses, ..Policy::hardened() });
    let policy = match outbound.rules {
        OutboundRules::Hardened => std::sync::Arc::clone(&hardened),
        OutboundRules::Open => std::sync::Arc::new(Policy::open()),
    };
    Outside {
        policy,
        untrusted_policy: hardened,
        limits: waft_outbound::Limits {
            connect_timeout: outbound.connect_timeout.0,
            ..waft_outbound::Limits::default()
        },
        lookup: match outbound.resolver {
            Resolver::System => Lookup::System,
            Resolver::Dns if outbound.name_servers.is_empty() => Lookup::Dns,
            Resolver::Dns => Lookup::Servers(outbound.name_servers.as_slice().into()),
        },
        filters: NetworkFilters {
            timeout: outbound.filter_timeout.0,
            concurrent_max: outbound.filter_concurrent_max.get(),
            rate_max: outbound.filter_rate_max.get(),
            body_max: outbound.filter_body_max.as_usize(),
            waiting_max: outbound.filter_waiting_max.get(),
        },
    }
}

fn handlers(plan: &Plan) -> HandlerSettings {
    let mongrel2 = &plan.mongrel2;
    HandlerSettings {
        body_max: mongrel2.body_max.as_usize(),
        store: mongrel2.upload_store.clone().map(|pattern| UploadStore {
            pattern,
            mode: mongrel2.upload_mode.0,
            max: mongrel2.upload_max.0,
        }),
        stream: mongrel2.upload_stream,
        download_credits: mongrel2.download_credits,
        replace_forwarded_for: mongrel2.replace_forwarded_for,
        ids_max: mongrel2.ids_max.get(),
        queue_max: mongrel2.queue_max.get(),
        send_file: mongrel2.sendfile.clone(),
    }
}

fn workers(plan: &Plan) -> WorkerSettings {
    let workers = &plan.workers;
    let role = match workers.role {
        waft_config::WorkerRole::Front => WorkerRole::Front,
        waft_config::WorkerRole::Gateway => WorkerRole::Gateway,
    };
    let default = WorkerSettings::default();
    WorkerSettings {
        name: workers.name.clone(),
        window: workers.window.0.max(1),
        // Workers of a front get every body by their credits.
        first_body_max: if role == WorkerRole::Front { 0 } else { default.first_body_max },
        pace: WorkerPace { keep_alive: workers.keep_alive.0, expires: workers.timeout.0 },
        role,
    }
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        head: HeadLimits {
            bytes_max: plan.limits.header_bytes.as_usize(),
            fields_max: plan.limits.header_fields.get(),
            ..HeadLimits::default()
        },
        head_timeout: plan.limits.header_timeout.0,
        http2: plan.server.http2.then(|| plan.limits.http2_streams_max.get()),
        handshake_timeout: plan.limits.handshake_timeout.0,
        idle_timeout: plan.limits.idle_timeout.duration().unwrap_or(NEVER),
        connections_max: plan.server.client_max.get(),
        queue: QueueLimits {
            items_max: plan.limits.queue_items.get(),
            bytes_max: plan.limits.queue_bytes.as_usize(),
            total_bytes_max: plan.limits.queue_total_bytes.as_usize(),
        },
        write_stall_timeout: plan.limits.write_stall_timeout.duration().unwrap_or(NEVER),
        hold_body_max: plan.grip.hold_body_max.as_usize(),
        request_body_max: plan.grip.request_body_max.as_usize(),
        subscriptions_max: plan.limits.subscriptions_max.get(),
        link_retries_max: plan.grip.next_link_retries_max,
        link_fetches_max: plan.grip.next_link_concurrent_max.get(),
        undelivered_bytes_max: plan.limits.undelivered_bytes.as_usize(),
        ..Limits::default()
    }
}

fn pace(plan: &Plan) -> Option<Pace> {
    (plan.limits.delivery_rate > 0).then(|| Pace {
        per_second: plan.limits.delivery_rate,
        queue_max: plan.limits.delivery_queue.get(),
        unit: block_size(plan),
    })
}

fn block_size(plan: &Plan) -> Option<u64> {
    Some(plan.stats.block_size.as_usize() as u64).filter(|size| *size > 0)
}

/// Where the ZeroMQ doors are, and what goes through them.
pub(crate) fn doors(plan: &Plan) -> DoorsConfig {
    let stats = &plan.stats;
    DoorsConfig {
        pull: plan.zmq.pull.clone(),
        sub: plan.zmq.sub.clone(),
        sub_connect: plan.zmq.sub_connect,
        command: plan.zmq.command.clone(),
        stats: plan.zmq.stats.clone(),
        mongrel2: plan.mongrel2.control.as_ref().map(|address| control_port(plan, address)),
        ipc_file_mode: plan.zmq.ipc_file_mode.map(|mode| mode.0),
        stats_config: StatsConfig {
            format: match stats.format {
                StatsFormat::Json => waft_doors::StatsFormat::Json,
                StatsFormat::TNetString => waft_doors::StatsFormat::TNetString,
            },
            connection_send: stats.connection_send,
            connection_ttl: stats.connection_ttl.0,
            subscription_ttl: stats.subscription_ttl.0,
            report_interval: stats.report_interval.duration(),
            block_size: block_size(plan),
        },
    }
}

/// Mongrel2's control port.
fn control_port(plan: &Plan, address: &str) -> ControlPort {
    let shown =
        |path: &Option<std::path::PathBuf>| path.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let clients = plan.server.listen.first().map(|listen| &listen.endpoint);
    let (bind_addr, port) = match clients {
        Some(Endpoint::Tcp(address)) => (address.ip().to_string(), address.port()),
        Some(other @ Endpoint::Unix { .. }) => (other.to_string(), 0),
        None => (String::new(), 0),
    };
    ControlPort {
        address: address.to_owned(),
        port,
        bind_addr,
        uuid: plan.mongrel2.uuid.clone(),
        access_log: shown(&plan.mongrel2.access_log),
        error_log: shown(&plan.logging.file),
        pid_file: shown(&plan.mongrel2.pid_file),
        default_host: plan.mongrel2.default_host.clone(),
    }
}

/// The sender of webhooks; none if it is switched off.
pub(crate) fn webhooks(plan: &Plan) -> Result<Option<WebhooksConfig>> {
    let webhooks = &plan.webhooks;
    let Some(directory) = webhooks.dir.clone() else { return Ok(None) };
    let millis = |duration: waft_config::Duration| u64::try_from(duration.0.as_millis()).unwrap_or(u64::MAX);
    let mut allow = Vec::with_capacity(webhooks.allow.len());
    for text in &webhooks.allow {
        allow.push(
            Exception::parse(text)
                .with_context(|| format!("webhooks.allow: `{text}` is no HOST, HOST:PORT, CIDR or CIDR:PORT"))?,
        );
    }
    if let Some(endpoint) = webhooks.endpoints.iter().find(|endpoint| endpoint.tls.insecure && !webhooks.allow_insecure)
    {
        bail!("webhooks.endpoints `{}`: tls.insecure needs webhooks.allow_insecure", endpoint.id);
    }
    let apps = webhooks.apps.iter().map(|app| ConfiguredApp { id: app.id.clone(), token: app.token.clone() });
    let listen = plan.server.listen.iter().chain(&plan.control.listen);
    let self_addresses = listen.filter_map(|listen| match &listen.endpoint {
        Endpoint::Tcp(address) => Some(*address),
        Endpoint::Unix { .. } => None,
    });
    Ok(Some(WebhooksConfig {
        directory,
        disk_max: webhooks.disk_max.0,
        limits: CoreLimits {
            queue_max: webhooks.queue_max,
            keep_ms: millis(webhooks.keep),
            keep_max: webhooks.keep_max,
            queue_age_ms: millis(webhooks.queue_age),
            schedule: webhooks.retry.iter().map(|pause| millis(*pause)).collect(),
            disable_after_ms: millis(webhooks.disable_after),
            host_concurrency_max: webhooks.host_concurrency_max,
            https_only: webhooks.https_only,
            ..CoreLimits::default()
        },
        policy: Policy {
            profile: Profile::Hardened {
                exceptions: allow,
                deny: webhooks.deny.iter().map(|text| Pattern::parse(text)).collect(),
            },
            self_addresses: self_addresses.collect(),
            ..Policy::hardened()
        },
        allow_insecure: webhooks.allow_insecure,
        timeout: webhooks.timeout.0,
        in_flight_max: webhooks.in_flight_max.get(),
        body_max: webhooks.body_max.as_usize(),
        apps: apps.collect(),
        endpoints: webhooks.endpoints.iter().map(webhook_endpoint).collect::<Result<_>>()?,
    }))
}

fn webhook_endpoint(endpoint: &waft_config::WebhookEndpoint) -> Result<ConfiguredEndpoint> {
    let style = endpoint.style.as_deref().unwrap_or("standard");
    let style = serde_json::from_value(style.into()).ok().with_context(|| {
        format!("webhooks.endpoints `{}`: `{style}` is no style; write standard, svix, github or stripe", endpoint.id)
    })?;
    let defaults = EndpointSettings::default();
    let settings = EndpointSettings {
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        types: endpoint.types.clone(),
        channels: endpoint.channels.clone(),
        headers: endpoint.headers.clone(),
        style,
        rate_per_s: endpoint.rate_per_s,
        concurrency_max: endpoint.concurrency_max.unwrap_or(defaults.concurrency_max),
        timeout_s: endpoint.timeout_s,
        retry_s: endpoint.retry_s.clone(),
        ordered: endpoint.ordered,
        disabled: endpoint.disabled,
        tls: TlsSettings {
            insecure: endpoint.tls.insecure,
            ca: endpoint.tls.ca.clone(),
            certificate: endpoint.tls.certificate.clone(),
            key: endpoint.tls.key.clone(),
        },
        ..defaults
    };
    settings.check(false).with_context(|| format!("webhooks.endpoints `{}` cannot be used", endpoint.id))?;
    let (id, app, secrets) = (endpoint.id.clone(), endpoint.app.clone(), endpoint.secrets.clone());
    Ok(ConfiguredEndpoint { id, app, secrets, settings })
}

/// What channels remember.
pub(crate) fn hub_limits(plan: &Plan) -> HubLimits {
    HubLimits {
        log_items_max: plan.log.items,
        log_bytes_max: plan.log.bytes.as_usize(),
        log_age_max: plan.log.age.0,
        log_total_bytes_max: plan.log.total_bytes.as_usize(),
        id_cache_ttl: plan.log.id_cache_ttl.duration().unwrap_or(Duration::ZERO),
        message_wait: plan.log.message_wait.0,
        linger: plan.stats.subscription_linger.0,
        ..HubLimits::default()
    }
}
