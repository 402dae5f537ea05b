//! The JSON form of an instruct (GRIP section 5).

use std::time::Duration;

use super::{ChannelRef, HoldMode, Instruct, InstructError, MAX_FILTERS, MIN_TIMEOUT};
use crate::keepalive::{self, KeepAlive};
use crate::shape::{Object, ShapeError, set_meta};
use crate::tnetstring::TValue;
use crate::{json, lenient, status};

/// Seconds are cut to this, about 68 years, so that sums of durations cannot overflow.
const MAX_SECONDS: u64 = 0x7fff_ffff;

pub(super) fn apply(instruct: &mut Instruct, body: &[u8]) -> Result<(), InstructError> {
    let value = json::parse(body).ok_or(InstructError::Json)?;
    let object = Object::new(&value, "instruct").ok().ok_or(InstructError::NotObject)?;
    if let Some(hold) = object.object("hold", "hold")? {
        read_hold(instruct, hold)?;
    }
    match object.get("response") {
        None => instruct.response.body = Some(bytes::Bytes::new()),
        Some(value @ TValue::Map(_)) => read_response(instruct, Object::new(value, "response")?)?,
        Some(_) => return Err(ShapeError::Unexplained.into()),
    }
    Ok(())
}

fn read_hold(instruct: &mut Instruct, hold: Object<'_, '_>) -> Result<(), InstructError> {
    instruct.hold = Some(match hold.bytes("mode")? {
        None | Some(b"response") => HoldMode::Response,
        Some(b"stream") => HoldMode::Stream,
        Some(_) => return Err(InstructError::JsonHold),
    });
    for value in hold.list("channels")?.ok_or_else(|| hold.missing("'channels'"))? {
        instruct.channels.push(read_channel(Object::new(value, "channel")?)?);
    }
    if let Some(seconds) = hold.count("timeout")? {
        instruct.timeout = Some(Duration::from_secs(seconds.min(MAX_SECONDS)).max(MIN_TIMEOUT));
    }
    if let Some(object) = hold.object("keep-alive", "keep-alive")? {
        instruct.keep_alive = Some(read_keep_alive(object)?);
    }
    for (name, value) in hold.meta()? {
        set_meta(&mut instruct.meta, name, value);
    }
    Ok(())
}

fn read_channel(object: Object<'_, '_>) -> Result<ChannelRef, InstructError> {
    let name = object.string("name")?.ok_or_else(|| object.missing("'name'"))?;
    let prev_id = object.string("prev-id")?;
    let filters = object.strings("filters", "filters")?.unwrap_or_default();
    if filters.len() > MAX_FILTERS {
        return Err(InstructError::Filters(name));
    }
    Ok(ChannelRef { name, prev_id, filters })
}

fn read_keep_alive(object: Object<'_, '_>) -> Result<KeepAlive, InstructError> {
    let data = match object.bytes("content-bin")? {
        Some(encoded) => lenient::base64(encoded),
        None => object.bytes("content")?.unwrap_or_default().to_vec(),
    };
    let timeout = match object.count("timeout")? {
        Some(seconds) => Duration::from_secs(seconds.min(MAX_SECONDS)).max(keepalive::MIN_TIMEOUT),
        None => keepalive::DEFAULT_TIMEOUT,
    };
    // GRIP defines no mode here, and proxies keep a fixed period, unlike with the header.
    let mode = match object.bytes("mode")? {
        None | Some(b"interval") => keepalive::Mode::Interval,
        Some(b"idle") => keepalive::Mode::Idle,
        Some(_) => return Err(InstructError::JsonKeepAliveMode),
    };
    Ok(KeepAlive { data: data.into(), timeout, mode })
}

fn read_response(instruct: &mut Instruct, object: Object<'_, '_>) -> Result<(), InstructError> {
    let code = object.code("code")?;
    if let Some(code) = code {
        instruct.response.code = code;
    }
    match object.string("reason")?.filter(|reason| !reason.chars().any(char::is_control)) {
        Some(reason) => instruct.response.reason = reason,
        None => {
            if let Some(code) = code {
                status::reason(code).clone_into(&mut instruct.response.reason);
            }
        }
    }
    instruct.response.headers = object.headers()?;
    let body = match object.bytes("body-bin")? {
        Some(encoded) => lenient::base64(encoded),
        None => object.bytes("body")?.unwrap_or_default().to_vec(),
    };
    instruct.response.body = Some(body.into());
    Ok(())
}
