//! Published messages on their way to the WebSockets of one shard.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::debug;
use waft_grip::filter::Filters;
use waft_grip::item::Action;
use waft_net::{Key, Wrote};
use waft_websocket::close::{self, Close};
use waft_websocket::message::Message;
use waft_websocket::negotiate::Params;

use super::{
    Out, ToTarget, channels, close as close_socket, close_after, fail, on_full, over_http, put_off_keep_alive,
};
use crate::ask::{self, Outcome, Question};
use crate::deliver::{AT_ONCE, MERGED_MAX, after, filter, members, paced};
use crate::hold::{self, Hold, Member};
use crate::payload::opcode;
use crate::place::Base;
use crate::record::Traffic;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item};

/// Delivers items of one channel to its WebSockets.
pub(crate) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    let Some(first) = items.first() else { return 0 };
    let crowd = members(shard, &first.channel, Class::Ws);
    let mut served = crowd.len();
    if !crowd.is_empty() {
        let block = shard.block_size();
        plain(shard, items, &crowd, |items| steps(items, block)).await;
    }
    let crowd = members(shard, &first.channel, Class::WsCareful);
    served += crowd.len();
    for member in paced(crowd) {
        let Some(member) = member else {
            tokio::task::yield_now().await;
            continue;
        };
        for item in after(items, member.since) {
            one(shard, member.key, item);
        }
    }
    served
}

/// Delivers to WebSockets that need nothing of their own: the same bytes for each.
async fn plain(shard: &Rc<Shard>, items: &[Item], crowd: &[Member], steps: impl Fn(&[Item]) -> Vec<Step>) {
    let all = steps(items);
    let oldest = items.first().map_or(0, |item| item.position.number);
    for (number, crowd) in crowd.chunks(AT_ONCE).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        let mut sent = Sent::default();
        for member in crowd {
            if member.since < oldest {
                apply(shard, member.key, &all, &mut sent);
            } else {
                apply(shard, member.key, &steps(after(items, member.since)), &mut sent);
            }
        }
        shard.metrics.delivered_ws.add(sent.items);
        shard.metrics.bytes_sent.add(sent.bytes);
    }
}

/// Delivers to the sockets of a realm's clients, of which all get an item in one form.
pub(crate) async fn in_form(
    shard: &Rc<Shard>,
    items: &[Item],
    crowd: &[Member],
    form: impl Fn(&Item) -> Option<&Message>,
) {
    plain(shard, items, crowd, |items| messages(items.iter().filter_map(&form))).await;
}

/// Messages with neighbours merged.
fn messages<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut merged: Vec<(&Message, u64)> = Vec::new();
    let mut size = 0;
    for message in messages {
        if size + message.plain().len() > MERGED_MAX {
            steps.extend(merge(&merged));
            merged.clear();
            size = 0;
        }
        size += message.plain().len();
        // Blocks are counted for the limits of routes with targets.
        merged.push((message, 0));
    }
    steps.extend(merge(&merged));
    steps
}

/// A step of what a plain WebSocket gets.
enum Step {
    /// Frames, and what is counted of them.
    Write(Bytes, Measure),
    Close(Close),
    Refresh,
}

/// What is counted of deliveries.
#[derive(Clone, Copy, Default)]
struct Measure {
    items: u64,
    /// Bytes of content.
    content: u64,
    /// Blocks of content, if that is counted.
    blocks: u64,
}

#[derive(Default)]
struct Sent {
    items: u64,
    bytes: u64,
}

/// What plain WebSockets get of a run of items, with neighbours merged.
fn steps(items: &[Item], block: Option<u64>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut merged: Vec<(&Message, u64)> = Vec::new();
    let mut size = 0;
    for item in items {
        let Some(format) = item.payload.formats.ws_message.as_ref() else { continue };
        let mismatch = format.content_filters.as_ref().is_some_and(|wanted| !Filters::default().agrees(wanted));
        match format.action {
            Action::Send if mismatch => {}
            Action::Send => {
                let Some(message) = item.payload.ws_message() else { continue };
                if size + message.plain().len() > MERGED_MAX {
                    steps.extend(merge(&merged));
                    merged.clear();
                    size = 0;
                }
                size += message.plain().len();
                merged.push((message, block.map_or(0, |block| item.payload.ws_blocks(block))));
            }
            Action::Close => {
                steps.extend(merge(&merged));
                steps.push(Step::Close(close_of(format)));
                return steps;
            }
            Action::Refresh => {
                steps.extend(merge(&merged));
                merged.clear();
                size = 0;
                steps.push(Step::Refresh);
            }
            Action::Hint => {}
        }
    }
    steps.extend(merge(&merged));
    steps
}

fn merge(messages: &[(&Message, u64)]) -> Option<Step> {
    let measure = Measure {
        items: messages.len() as u64,
        content: messages.iter().map(|(message, _)| message.content().len() as u64).sum(),
        blocks: messages.iter().map(|(_, blocks)| blocks).sum(),
    };
    match messages {
        [] => None,
        [(message, _)] => Some(Step::Write(message.plain().clone(), measure)),
        _ => {
            let mut out = BytesMut::with_capacity(messages.iter().map(|(message, _)| message.plain().len()).sum());
            for (message, _) in messages {
                out.extend_from_slice(message.plain());
            }
            Some(Step::Write(out.freeze(), measure))
        }
    }
}

/// The close frame that an item asks for. A code that must not stand in one becomes the ordinary code.
fn close_of(format: &waft_grip::item::WsMessage) -> Close {
    let code = format.code.filter(|code| close::may_be_sent(*code)).unwrap_or(close::NORMAL);
    Close::new(code, &format.reason)
}

/// Writes to one plain WebSocket.
fn apply(shard: &Rc<Shard>, key: Key, steps: &[Step], sent: &mut Sent) {
    for step in steps {
        let (data, measure) = match step {
            Step::Write(data, measure) => (data, *measure),
            Step::Close(close) => return close_socket(shard, key, close),
            Step::Refresh => {
                refresh(shard, key);
                continue;
            }
        };
        if !write(shard, key, data) {
            return;
        }
        if shard.record.is_some()
            && let Some(Hold::Ws(hold)) = shard.held.borrow().get(key)
        {
            shard.tally(&hold.route, |traffic| tally(traffic, measure));
        }
        sent.items += measure.items;
        sent.bytes += data.len() as u64;
    }
}

/// Writes published frames to a WebSocket that may still get some. False if it is not to get more.
fn write(shard: &Rc<Shard>, key: Key, data: &Bytes) -> bool {
    let mut held = shard.held.borrow_mut();
    let scheduled = match held.get(key) {
        Some(Hold::Ws(hold)) if !hold.close_sent => hold.schedule.is_some(),
        _ => return false,
    };
    match held.write(key, data) {
        Wrote::Sent => {}
        Wrote::Queued => {
            shard.slow.borrow_mut().insert(key);
        }
        Wrote::Full => {
            drop(held);
            on_full(shard, key);
            return false;
        }
        Wrote::Failed => {
            drop(held);
            hold::end(shard, key);
            return false;
        }
    }
    drop(held);
    if scheduled {
        put_off_keep_alive(shard, key);
    }
    true
}

/// Writes frames made for one WebSocket. False if it is not to get more.
pub(crate) fn write_published(shard: &Rc<Shard>, key: Key, frames: &Bytes) -> bool {
    let written = write(shard, key, frames);
    if written {
        shard.metrics.bytes_sent.add(frames.len() as u64);
    }
    written
}

/// Lets the targets of a channel's WebSockets be asked now.
pub(crate) fn refresh_channel(shard: &Rc<Shard>, channel: &str) {
    for class in [Class::Ws, Class::WsCareful] {
        for member in members(shard, channel, class) {
            refresh(shard, member.key);
        }
    }
}

/// Lets the target of the WebSocket of this name be asked now.
pub(crate) fn refresh_socket(shard: &Rc<Shard>, id: &str) {
    if let Some(key) = shard.record.as_ref().and_then(|record| record.socket(id)) {
        refresh(shard, key);
    }
}

/// Lets a target that is reached by HTTP be asked now.
fn refresh(shard: &Rc<Shard>, key: Key) {
    if ask_again(shard, key) {
        over_http::pump(shard, key);
    }
}

/// Notes that a target is to be asked; false if it is not reached by HTTP.
fn ask_again(shard: &Shard, key: Key) -> bool {
    match shard.held.borrow().get(key) {
        Some(Hold::Ws(hold)) => match &hold.target {
            ToTarget::OverHttp(link) => {
                link.session.borrow_mut().refresh();
                true
            }
            ToTarget::Direct(_) | ToTarget::Echo | ToTarget::Nowhere | ToTarget::Realm(_) | ToTarget::Worker(_) => {
                false
            }
        },
        _ => false,
    }
}

/// Delivers an item to a WebSocket that is looked at by itself.
pub(crate) fn one(shard: &Rc<Shard>, key: Key, item: &Item) {
    if ask::wait(shard, key, item) {
        return;
    }
    if let Some(frame) = compressed(shard, key, item) {
        if write(shard, key, &frame) {
            shard.metrics.delivered_ws.add(1);
            shard.metrics.bytes_sent.add(frame.len() as u64);
            count(shard, key, item);
        }
        return;
    }
    let full = {
        let held = shard.held.borrow();
        let limits = shard.gateway.settings().limits.queue;
        held.waiting_bytes(key) > limits.bytes_max
    };
    if full {
        return on_full(shard, key);
    }
    let mut out = Out::default();
    put(shard, key, item, &mut out);
    out.flush(shard, key);
}

/// Counts the delivery of an item, if this gateway records.
fn count(shard: &Rc<Shard>, key: Key, item: &Item) {
    if shard.record.is_some()
        && let Some(Hold::Ws(hold)) = shard.held.borrow().get(key)
    {
        let content = item.payload.ws_message().map_or(0, |message| message.content().len() as u64);
        let blocks = shard.block_size().map_or(0, |block| item.payload.ws_blocks(block));
        shard.tally(&hold.route, |traffic| tally(traffic, Measure { items: 1, content, blocks }));
    }
}

/// The frame of an item for a WebSocket that differs from a plain one by its compression alone.
fn compressed(shard: &Shard, key: Key, item: &Item) -> Option<Bytes> {
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return None };
    let sub = hold.subs.get(channels::place_in(shard, &hold.subs, &item.channel)?)?;
    let format = item.payload.formats.ws_message.as_ref()?;
    if sub.filters != Filters::default() || sub.prev_id.is_some() || format.content_filters.is_some() {
        return None;
    }
    let message = item.payload.ws_message()?;
    Some(message.frame_for(hold.deflate.as_ref(), &mut shard.ws.compressors.borrow_mut()).clone())
}

/// Puts an item up for a WebSocket, with everything that its subscription asks for.
pub(super) fn put(shard: &Rc<Shard>, key: Key, item: &Item, out: &mut Out) {
    if ask::wait(shard, key, item) {
        return;
    }
    let Some(before) = missed_before(shard, key, item, out) else { return };
    for missed in before {
        if !put_next(shard, key, &missed, out) {
            return;
        }
    }
    put_next(shard, key, item, out);
}

/// Puts an item up that follows the position of its subscription. False if it ends the run of items.
fn put_next(shard: &Rc<Shard>, key: Key, item: &Item, out: &mut Out) -> bool {
    if ask::wait(shard, key, item) {
        return true;
    }
    let treatment = treat_next(shard, key, item, out);
    let goes_on = matches!(treatment, Treatment::Done | Treatment::Ask(_));
    carry_out(shard, key, treatment, out);
    goes_on
}

/// Gives a WebSocket what came of the question about an item.
pub(crate) fn give(shard: &Rc<Shard>, key: Key, item: &Item, outcome: Outcome) {
    let mut out = Out::default();
    match outcome {
        Ok(None) => return,
        Ok(Some(content)) => {
            let Some(format) = item.payload.formats.ws_message.as_ref() else { return };
            let deflate = match shard.held.borrow().get(key) {
                Some(Hold::Ws(hold)) if !hold.close_sent => {
                    let blocks = shard.block_size().map_or(0, |block| item.payload.ws_blocks(block));
                    let measure = Measure { items: 1, content: content.len() as u64, blocks };
                    shard.tally(&hold.route, |traffic| tally(traffic, measure));
                    hold.deflate
                }
                _ => return,
            };
            out.message(shard, deflate.as_ref(), opcode(format.kind), &content);
            shard.metrics.delivered_ws.add(1);
        }
        Err(error) => carry_out(shard, key, Treatment::Fail(error), &mut out),
    }
    out.flush(shard, key);
}

fn carry_out(shard: &Rc<Shard>, key: Key, treatment: Treatment, out: &mut Out) {
    match treatment {
        Treatment::Done => {}
        Treatment::Ask(question) => ask::put(shard, key, question),
        Treatment::Close(close) => close_after(shard, key, &close, out),
        Treatment::Refresh => {
            if ask_again(shard, key) {
                out.pump();
            }
        }
        Treatment::Fail(error) => {
            let debug = match shard.held.borrow().get(key) {
                Some(Hold::Ws(hold)) => hold.route.options.debug,
                _ => false,
            };
            if debug {
                fail(shard, key, &Close::new(close::INTERNAL_ERROR, &error), out);
            }
        }
    }
}

/// What is left to do after an item was looked at.
enum Treatment {
    Done,
    /// What a web service says.
    Ask(Box<Question>),
    Close(Close),
    Refresh,
    Fail(String),
}

/// What has to come before an item that does not follow the position of its subscription; nothing where a gap closes
/// the connection.
fn missed_before(shard: &Rc<Shard>, key: Key, item: &Item, out: &mut Out) -> Option<Vec<Item>> {
    let held = shard.held.borrow();
    let Some(Hold::Ws(hold)) = held.get(key) else { return Some(Vec::new()) };
    let place = channels::place_in(shard, &hold.subs, &item.channel);
    let Some(position) = place.and_then(|place| hold.subs.get(place)?.prev_id.clone()) else {
        return Some(Vec::new());
    };
    if item.prev_id.as_deref() == Some(&*position) {
        return Some(Vec::new());
    }
    let prefix = &hold.route.options.prefix;
    let channel = item.channel.strip_prefix(prefix.as_str()).unwrap_or(&item.channel).to_owned();
    let found = if hold.route.options.log { channels::between(shard, &position, item) } else { None };
    drop(held);
    match found {
        Some(mut items) => {
            items.retain(|found| found.position.number < item.position.number);
            Some(items)
        }
        None => {
            shard.gateway.hub.forget_last_id(&item.channel);
            (!channels::tell_gap(shard, key, &channel, &position, out)).then(Vec::new)
        }
    }
}

fn treat_next(shard: &Rc<Shard>, key: Key, item: &Item, out: &mut Out) -> Treatment {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Ws(hold)) = held.get_mut(key) else { return Treatment::Done };
    let Some(format) = item.payload.formats.ws_message.as_ref() else { return Treatment::Done };
    let Some(place) = channels::place_in(shard, &hold.subs, &item.channel) else { return Treatment::Done };
    if hold.close_sent {
        return Treatment::Done;
    }
    match format.action {
        Action::Send => {}
        Action::Close => return Treatment::Close(close_of(format)),
        Action::Refresh => return Treatment::Refresh,
        Action::Hint => return Treatment::Done,
    }
    let Some(filters) = hold.subs.get(place).map(|sub| sub.filters) else { return Treatment::Done };
    if let Some(wanted) = &format.content_filters
        && !filters.agrees(wanted)
    {
        shard.metrics.dropped_mismatch.add(1);
        debug!(channel = %item.channel, error = filters.mismatch(wanted), "An item does not suit a listener.");
        move_on(hold, place, item);
        return Treatment::Fail(format!("filter error: {}", filters.mismatch(wanted)));
    }
    let deflate = hold.deflate;
    let outcome = if filters == Filters::default() {
        put_shared(shard, deflate.as_ref(), item, out);
        Ok(true)
    } else {
        let prefix = &hold.route.options.prefix;
        let filtered = filter(shard, prefix, &hold.subs, &hold.meta.0, filters, item, &format.content);
        if let Ok(Some(content)) = &filtered
            && filters.needs_network()
        {
            let question = Question {
                route: Arc::clone(&hold.route),
                base: Base::parse(&hold.uri),
                meta: Rc::clone(&hold.meta),
                positions: subscribe::positions(shard, prefix, &hold.subs),
                filters,
                item: Arc::clone(item),
                content: content.to_vec().into(),
            };
            move_on(hold, place, item);
            return Treatment::Ask(Box::new(question));
        }
        filtered.map(|content| match content {
            None => false,
            // Nothing was changed: the frame that all others get.
            Some(Cow::Borrowed(_)) => {
                put_shared(shard, deflate.as_ref(), item, out);
                true
            }
            Some(Cow::Owned(changed)) => {
                out.message(shard, deflate.as_ref(), opcode(format.kind), &changed);
                true
            }
        })
    };
    move_on(hold, place, item);
    match outcome {
        Ok(delivered) => {
            shard.metrics.delivered_ws.add(u64::from(delivered));
            if delivered {
                let blocks = shard.block_size().map_or(0, |block| item.payload.ws_blocks(block));
                let measure = Measure { items: 1, content: format.content.len() as u64, blocks };
                shard.tally(&hold.route, |traffic| tally(traffic, measure));
            }
            Treatment::Done
        }
        Err(error) => Treatment::Fail(error),
    }
}

/// Puts the frame up that an item has for all who agreed on the same.
fn put_shared(shard: &Shard, deflate: Option<&Params>, item: &Item, out: &mut Out) {
    if let Some(message) = item.payload.ws_message() {
        out.client.extend_from_slice(message.frame_for(deflate, &mut shard.ws.compressors.borrow_mut()));
    }
}

/// Counts deliveries.
fn tally(traffic: &mut Traffic, measure: Measure) {
    traffic.deliveries += measure.items;
    traffic.blocks += measure.blocks;
    traffic.client_sent.messages += measure.items;
    traffic.client_sent.content_bytes += measure.content;
}

/// Moves the position of a subscription that has one.
fn move_on(hold: &mut super::WsHold, place: usize, item: &Arc<waft_hub::Ordered<crate::payload::Payload>>) {
    if let Some(sub) = hold.subs.get_mut(place).filter(|sub| sub.prev_id.is_some()) {
        sub.prev_id = item.id.as_deref().map(Box::from);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use waft_grip::item::{Formats, WsMessage};
    use waft_hub::{Hub, HubLimits, Mode, Publish};

    use super::*;
    use crate::payload::Payload;

    /// The items that a channel makes of some messages.
    fn items(messages: impl IntoIterator<Item = WsMessage>) -> Vec<Item> {
        let (hub, now) = (Hub::new(HubLimits::default(), 1), Instant::now());
        hub.subscribe(now, 0, "c", Mode::Ws);
        let mut items = Vec::new();
        for message in messages {
            let formats = Formats { ws_message: Some(message), ..Formats::default() };
            let payload = Payload::new(waft_grip::item::Item::new("c", formats));
            let publish = Publish { channel: "c".into(), id: None, prev_id: None, no_seq: false, size: 0, payload };
            hub.publish(now, publish, &mut |_, item| items.push(Arc::clone(item)));
        }
        items
    }

    fn shown(messages: impl IntoIterator<Item = WsMessage>) -> Vec<String> {
        let shown = |step: &Step| match step {
            Step::Write(data, measure) => format!("{}:{}", measure.items, data.escape_ascii()),
            Step::Close(close) => format!("close {} {}", close.code, close.reason.escape_ascii()),
            Step::Refresh => "refresh".to_owned(),
        };
        steps(&items(messages), None).iter().map(shown).collect()
    }

    fn text(content: &'static str) -> WsMessage {
        WsMessage { content: content.into(), ..WsMessage::default() }
    }

    fn action(action: Action) -> WsMessage {
        WsMessage { action, ..WsMessage::default() }
    }

    #[test]
    fn neighbours_are_written_at_once() {
        assert_eq!(shown([text("a")]), [r"1:\x81\x01a"]);
        assert_eq!(shown([text("a"), text(""), text("b")]), [r"3:\x81\x01a\x81\x00\x81\x01b"]);
        assert_eq!(shown([text("a"), action(Action::Hint)]), [r"1:\x81\x01a"]);
        let large = || WsMessage { content: vec![b'x'; MERGED_MAX / 2].into(), ..WsMessage::default() };
        assert_eq!(shown([large(), large(), large()]).len(), 3);
    }

    #[test]
    fn actions_keep_their_place_and_nothing_follows_a_close() {
        let close = WsMessage { code: Some(4001), reason: "over".to_owned(), ..action(Action::Close) };
        let steps = shown([text("a"), action(Action::Refresh), text("b"), close, text("c")]);
        assert_eq!(steps, [r"1:\x81\x01a", "refresh", r"1:\x81\x01b", "close 4001 over"]);
    }

    #[test]
    fn a_close_never_carries_a_code_that_must_not_be_sent() {
        for (asked, sent) in [(None, 1000), (Some(1005), 1000), (Some(0), 1000), (Some(3000), 3000)] {
            let close = close_of(&WsMessage { code: asked, ..WsMessage::default() });
            assert_eq!(close.code, sent, "{asked:?}");
        }
    }

    #[test]
    fn what_was_prepared_for_filters_is_not_for_plain_listeners() {
        let prepared = WsMessage { content_filters: Some(vec!["var-subst".to_owned()]), ..text("a") };
        assert_eq!(shown([prepared, text("b")]), [r"1:\x81\x01b"]);
    }
}
