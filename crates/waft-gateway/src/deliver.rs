//! Items on their way to the listeners of one shard.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tracing::debug;
use waft_grip::filter::{Context, Filters, Verdict};
use waft_grip::item::{Action, HttpStream};
use waft_http1::Version;
use waft_hub::Replay;
use waft_net::{Key, Wrote};

use crate::ask::{self, Outcome, Question};
use crate::dress::Whole;
use crate::hold::{self, Hold, Member, Timeout, keep_alive_due};
use crate::pace;
use crate::payload::stream_content;
use crate::place::Base;
use crate::realm::forms;
use crate::service::Answer;
use crate::settings::Pace;
use crate::shard::Shard;
use crate::subscribe::{self, Class, Item};
use crate::update::{self, Urgency};

/// Listeners served before other work gets its turn.
pub(crate) const AT_ONCE: usize = 512;
/// Messages merged into one write, in bytes: beyond that a call costs what its bytes cost.
pub(crate) const MERGED_MAX: usize = 64 << 10;

/// Delivers items in the order in which they came: all of one channel together, so that a
/// listener gets them with one write. Returns how many listeners were served.
pub(crate) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    if items.is_empty() {
        return 0;
    }
    let pace = shard.gateway.settings().pace;
    match items {
        [] => 0,
        [item] => channel(shard, std::slice::from_ref(item), pace).await,
        _ => {
            let mut order: Vec<Vec<Item>> = Vec::new();
            let mut places: HashMap<&str, usize> = HashMap::new();
            for item in items {
                let place = *places.entry(&item.channel).or_insert_with(|| {
                    order.push(Vec::new());
                    order.len() - 1
                });
                if let Some(run) = order.get_mut(place) {
                    run.push(Arc::clone(item));
                }
            }
            let mut served = 0;
            for run in order {
                served += channel(shard, &run, pace).await;
            }
            served
        }
    }
}

/// Delivers items of one channel; returns to how many listeners.
async fn channel(shard: &Rc<Shard>, items: &[Item], pace: Option<Pace>) -> usize {
    let Some(first) = items.first() else { return 0 };
    let name = &first.channel;
    let has_guests = {
        let listeners = shard.listeners.borrow();
        let Some(index) = listeners.channel(name) else { return 0 };
        listeners.classes(index).any(|(class, _)| class >= Class::FIRST_OF_REALMS)
    };
    if let Some(pace) = pace {
        // The rate is for holds of targets.
        let guests = if has_guests { crate::realm::deliver(shard, items).await } else { 0 };
        return guests + pace::queue(shard, items, pace);
    }
    let mut served = 0;
    for class in [Class::Chunked, Class::Raw] {
        let crowd = members(shard, name, class);
        served += crowd.len();
        if !crowd.is_empty() {
            plain(shard, items, class, &crowd).await;
        }
    }
    let crowd = members(shard, name, Class::Stream);
    served += crowd.len();
    for member in paced(crowd) {
        if let Some(member) = member {
            for item in after(items, member.since) {
                to_stream(shard, member.key, item);
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
    let crowd = members(shard, name, Class::Response);
    served += crowd.len();
    let mut answers = Answers::default();
    for member in paced(crowd) {
        if let Some(member) = member {
            for item in after(items, member.since) {
                to_response(shard, member.key, item, &mut answers);
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
    served += crate::ws::deliver(shard, items).await;
    if has_guests {
        served += crate::realm::deliver(shard, items).await;
    }
    let now = Instant::now();
    for item in items {
        shard.metrics.delivery_latency.observe(now.saturating_duration_since(item.received));
    }
    served
}

/// Everyone of a class who listens now: whoever comes later has subscribed after these items. Asked
/// for by name each time, since a channel may go and another take its place whenever others work.
pub(crate) fn members(shard: &Shard, name: &str, class: Class) -> Vec<Member> {
    let listeners = shard.listeners.borrow();
    let Some(index) = listeners.channel(name) else { return Vec::new() };
    let slots = listeners.slots(index, class as u8);
    listeners.walk(index, class as u8, 0, slots).collect()
}

/// The members, with a `None` wherever other work should get its turn.
pub(crate) fn paced(members: Vec<Member>) -> impl Iterator<Item = Option<Member>> {
    members.into_iter().enumerate().flat_map(|(number, member)| {
        let pause = number > 0 && number % AT_ONCE == 0;
        pause.then_some(None).into_iter().chain([Some(member)])
    })
}

/// The items that came after a listener had joined.
pub(crate) fn after(items: &[Item], since: u64) -> &[Item] {
    let first = items.partition_point(|item| item.position.number <= since);
    items.get(first..).unwrap_or_default()
}

/// What a stream that needs nothing of its own gets of an item.
pub(crate) fn plain_content(item: &Item) -> Option<&Bytes> {
    let format = item.payload.formats.http_stream.as_ref()?;
    let mismatch = format.content_filters.as_ref().is_some_and(|wanted| !Filters::default().agrees(wanted));
    if mismatch { None } else { stream_content(format) }
}

/// A step of what a plain stream gets.
enum Step {
    Write(Bytes),
    Close,
}

/// What plain streams of a class get of a run of items.
struct Run {
    steps: Vec<Step>,
    /// Items among them.
    count: usize,
    /// Bytes of their content.
    content: usize,
    /// Blocks of their content, if that is counted.
    blocks: u64,
}

/// Puts a run together, with neighbours merged.
fn steps(items: &[Item], class: Class, block: Option<u64>) -> Run {
    let mut steps = Vec::new();
    let mut merged: Vec<&Item> = Vec::new();
    let mut size = 0;
    let (mut count, mut bytes, mut blocks) = (0, 0, 0);
    for item in items {
        if let Some(content) = content_len(item, class) {
            bytes += content;
            blocks += block.map_or(0, |block| item.payload.stream_blocks(block));
            if size + content > MERGED_MAX {
                steps.extend(merge(&merged, class));
                merged.clear();
                size = 0;
            }
            merged.push(item);
            size += content + 16;
            count += 1;
        } else if class as u8 >= Class::FIRST_OF_REALMS {
            // What GRIP says of streams does not concern them.
        } else if item.payload.formats.http_stream.as_ref().is_some_and(|format| format.action == Action::Close) {
            steps.extend(merge(&merged, class));
            steps.push(Step::Close);
            return Run { steps, count, content: bytes, blocks };
        }
    }
    steps.extend(merge(&merged, class));
    Run { steps, count, content: bytes, blocks }
}

/// Bytes of what a plain stream of a class gets of an item.
fn content_len(item: &Item, class: Class) -> Option<usize> {
    match class {
        Class::SseChunked | Class::SseRaw => forms::sse(item).map(|form| form.content().len()),
        Class::LinesChunked | Class::LinesRaw => forms::line(item).map(|form| form.content().len()),
        Class::BayeuxEventsChunked | Class::BayeuxEventsRaw => {
            forms::bayeux_event(item).map(|form| form.content().len())
        }
        _ => plain_content(item).map(Bytes::len),
    }
}

/// What a plain stream of a class gets of an item, as it goes over the wire.
fn wire_form(item: &Item, class: Class) -> Option<Bytes> {
    match class {
        Class::Chunked => item.payload.stream_chunk().cloned(),
        Class::SseChunked | Class::SseRaw => {
            forms::sse(item).map(|form| form.bytes(class == Class::SseChunked).clone())
        }
        Class::LinesChunked | Class::LinesRaw => {
            forms::line(item).map(|form| form.bytes(class == Class::LinesChunked).clone())
        }
        Class::BayeuxEventsChunked | Class::BayeuxEventsRaw => {
            forms::bayeux_event(item).map(|form| form.bytes(class == Class::BayeuxEventsChunked).clone())
        }
        _ => plain_content(item).cloned(),
    }
}

fn merge(items: &[&Item], class: Class) -> Option<Step> {
    let bytes = |item: &Item| wire_form(item, class);
    match items {
        [] => None,
        [item] => bytes(item).map(Step::Write),
        _ => {
            let mut out = BytesMut::new();
            for part in items.iter().filter_map(|item| bytes(item)) {
                out.extend_from_slice(&part);
            }
            Some(Step::Write(out.freeze()))
        }
    }
}

/// Delivers to streams that need nothing of their own: the same bytes for each.
pub(crate) async fn plain(shard: &Rc<Shard>, items: &[Item], class: Class, members: &[Member]) {
    let block = shard.block_size();
    let all = steps(items, class, block);
    let oldest = items.first().map_or(0, |item| item.position.number);
    for (number, crowd) in members.chunks(AT_ONCE).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        let mut delivered = 0;
        let mut sent = 0;
        for member in crowd {
            if member.since < oldest {
                delivered += all.count;
                sent += apply(shard, member.key, &all, now);
            } else {
                let some = steps(after(items, member.since), class, block);
                delivered += some.count;
                sent += apply(shard, member.key, &some, now);
            }
        }
        shard.metrics.delivered_stream.add(delivered as u64);
        shard.metrics.bytes_sent.add(sent);
    }
}

/// Writes to one plain stream; returns the bytes taken.
fn apply(shard: &Rc<Shard>, key: Key, run: &Run, now: Instant) -> u64 {
    let mut sent = 0;
    tally(shard, key, run.count, run.content, run.blocks);
    for step in &run.steps {
        let data = match step {
            Step::Write(data) => data,
            Step::Close => {
                hold::end_stream(shard, key);
                return sent;
            }
        };
        let mut held = shard.held.borrow_mut();
        match held.write(key, data) {
            Wrote::Sent => {
                sent += data.len() as u64;
                if let Some(Hold::Stream(hold)) = held.get(key)
                    && let Some(keep_alive) = hold.idle_keep_alive()
                {
                    let due = keep_alive_due(keep_alive, now);
                    held.set_deadline(key, Some(due));
                }
            }
            Wrote::Queued => {
                sent += data.len() as u64;
                shard.slow.borrow_mut().insert(key);
            }
            Wrote::Full => {
                drop(held);
                hold::on_full(shard, key);
            }
            Wrote::Failed => {
                drop(held);
                hold::end(shard, key);
                return sent;
            }
        }
    }
    sent
}

/// Counts deliveries to a stream.
fn tally(shard: &Shard, key: Key, count: usize, content: usize, blocks: u64) {
    if shard.record.is_some()
        && let Some(Hold::Stream(hold)) = shard.held.borrow().get(key)
    {
        shard.tally(&hold.route, |traffic| {
            traffic.deliveries += count as u64;
            traffic.blocks += blocks;
            traffic.client_sent.content_bytes += content as u64;
        });
    }
}

/// What is to be done with an item for one stream.
enum Treatment {
    Nothing,
    /// These bytes, if any, and what a web service says.
    Ask(Bytes, Box<Question>),
    /// These bytes, with so much content.
    Write(Bytes, usize),
    Close,
    Fetch(Urgency),
    /// These items come first.
    Replay(Vec<Item>),
    Fail(String),
}

/// Delivers an item to a stream that is looked at by itself.
pub(crate) fn to_stream(shard: &Rc<Shard>, key: Key, item: &Item) {
    if !ask::wait(shard, key, item) {
        let treatment = treat(shard, key, item);
        carry_out(shard, key, item, treatment);
    }
}

/// Gives a stream what came of the question about an item.
pub(crate) fn give_stream(shard: &Rc<Shard>, key: Key, item: &Item, outcome: Outcome) {
    let version = match shard.held.borrow().get(key) {
        Some(Hold::Stream(hold)) => hold.line.version,
        _ => return,
    };
    carry_out(shard, key, item, of_outcome(version, outcome));
}

fn carry_out(shard: &Rc<Shard>, key: Key, item: &Item, treatment: Treatment) {
    match treatment {
        Treatment::Nothing => {}
        Treatment::Ask(first, question) => {
            if first.is_empty() || hold::send(shard, key, &first) {
                ask::put(shard, key, question);
            }
        }
        Treatment::Write(data, content) => {
            let blocks = shard.block_size().map_or(0, |block| item.payload.stream_blocks(block));
            tally(shard, key, 1, content, blocks);
            if hold::send(shard, key, &data) {
                shard.metrics.delivered_stream.add(1);
                put_off_keep_alive(shard, key);
            } else {
                stay_before(shard, key, item);
            }
        }
        Treatment::Close => hold::end_stream(shard, key),
        Treatment::Fetch(urgency) => update::request(shard, key, urgency),
        Treatment::Replay(items) => {
            shard.metrics.replayed.add(items.len() as u64);
            for item in &items {
                to_stream(shard, key, item);
            }
        }
        Treatment::Fail(error) => {
            let debug = match shard.held.borrow().get(key) {
                Some(Hold::Stream(hold)) => hold.route.options.debug.then_some(hold.line.version),
                _ => None,
            };
            if let Some(version) = debug {
                hold::send(shard, key, &hold::framed(version, format!("\n\n{error}\n").as_bytes()));
                hold::end_stream(shard, key);
            }
        }
    }
}

/// An item was dropped for a stream: its position stays the one before, so that the target is asked from there on.
fn stay_before(shard: &Shard, key: Key, item: &Item) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return };
    let listeners = shard.listeners.borrow();
    let named =
        |sub: &&mut subscribe::Sub| listeners.name_of(sub.subscription).is_some_and(|name| **name == *item.channel);
    if let Some(sub) = hold.subs.iter_mut().find(named).filter(|sub| sub.prev_id.is_some()) {
        sub.prev_id = item.prev_id.as_deref().map(Box::from);
    }
}

pub(crate) fn put_off_keep_alive(shard: &Rc<Shard>, key: Key) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return };
    if let Some(keep_alive) = hold.idle_keep_alive() {
        hold.keep_due = Some(keep_alive_due(keep_alive, Instant::now()));
        let due = hold.due();
        held.set_deadline(key, due);
    }
}

/// Decides what an item means for a stream, and moves the stream's position.
fn treat(shard: &Rc<Shard>, key: Key, item: &Item) -> Treatment {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Stream(hold)) = held.get_mut(key) else { return Treatment::Nothing };
    let Some(format) = item.payload.formats.http_stream.as_ref() else { return Treatment::Nothing };
    if let Some(next) = hold.next.as_mut().filter(|next| next.updating) {
        let limit = shard.gateway.settings().limits.updating_items_max;
        if next.pending.len() < limit {
            next.pending.push(Arc::clone(item));
        } else {
            shard.metrics.dropped_updating.add(1);
        }
        return Treatment::Nothing;
    }
    if hold.gap && hold.can_recover() {
        // The target will be asked for this one too, once the client has taken what waits.
        shard.metrics.dropped_slow.add(1);
        return Treatment::Nothing;
    }
    let listeners = shard.listeners.borrow();
    let named =
        |sub: &&mut subscribe::Sub| listeners.name_of(sub.subscription).is_some_and(|name| **name == *item.channel);
    let Some(sub) = hold.subs.iter_mut().find(named) else { return Treatment::Nothing };
    sub.active = true;
    match format.action {
        Action::Send => {}
        Action::Close => return Treatment::Close,
        Action::Hint => return Treatment::Fetch(Urgency::High),
        Action::Refresh => return Treatment::Nothing,
    }
    let mut gap = false;
    if let Some(position) = &sub.prev_id
        && item.prev_id.as_deref() != Some(&**position)
    {
        shard.gateway.hub.forget_last_id(&item.channel);
        if hold.route.options.log
            && let Replay::Items(mut items) = shard.gateway.hub.since_id(&item.channel, position)
            && items.first().is_some_and(|first| first.prev_id.as_deref() == Some(&**position))
        {
            // What came after this item is on its way by itself.
            items.retain(|found| found.position.number <= item.position.number);
            return Treatment::Replay(items);
        }
        if hold.next.is_some() {
            return Treatment::Fetch(Urgency::Low);
        }
        // Nobody can be asked for what is missing.
        if !hold.is_sse {
            return Treatment::Close;
        }
        gap = true;
    }
    let filters = sub.filters;
    if sub.prev_id.is_some() {
        // Filters see the position that the listener has with this item.
        sub.prev_id = item.id.as_deref().map(Box::from);
    }
    drop(listeners);
    let treatment = content_for(shard, hold, filters, item, format);
    if !gap {
        return treatment;
    }
    shard.metrics.gaps_told.add(1);
    let notice = hold::framed(hold.line.version, hold::GAP_NOTICE);
    match treatment {
        Treatment::Write(data, content) => {
            Treatment::Write([notice, data].concat().into(), hold::GAP_NOTICE.len() + content)
        }
        Treatment::Ask(_, question) => Treatment::Ask(notice, question),
        _ => Treatment::Write(notice, hold::GAP_NOTICE.len()),
    }
}

/// What a stream with these filters gets of an item that sends something.
fn content_for(
    shard: &Shard,
    hold: &hold::StreamHold,
    filters: Filters,
    item: &Item,
    format: &HttpStream,
) -> Treatment {
    if let Some(wanted) = &format.content_filters
        && !filters.agrees(wanted)
    {
        shard.metrics.dropped_mismatch.add(1);
        return Treatment::Fail(format!("filter error: {}", filters.mismatch(wanted)));
    }
    let version = hold.line.version;
    if filters == Filters::default() {
        let content = match version {
            Version::Http11 => item.payload.stream_chunk().cloned(),
            Version::Http10 => stream_content(format).cloned(),
        };
        return content.map_or(Treatment::Nothing, |data| Treatment::Write(data, format.content.len()));
    }
    let prefix = &hold.route.options.prefix;
    match filter(shard, prefix, &hold.subs, &hold.meta.0, filters, item, &format.content) {
        Ok(Some(content)) if filters.needs_network() => {
            let next = hold.next.as_ref().map(|next| &next.base);
            let base = next.or(hold.place.as_deref()).cloned().unwrap_or_else(|| Base::parse(""));
            let route = Arc::clone(&hold.route);
            let positions = subscribe::positions(shard, prefix, &hold.subs);
            let (item, content) = (Arc::clone(item), content.into_owned().into());
            let meta = Rc::clone(&hold.meta);
            Treatment::Ask(Bytes::new(), Box::new(Question { route, base, meta, positions, filters, item, content }))
        }
        Ok(content) => of_outcome(version, Ok(content.map(|content| content.into_owned().into()))),
        Err(error) => Treatment::Fail(error),
    }
}

/// What a stream gets of what its filters made.
fn of_outcome(version: Version, outcome: Outcome) -> Treatment {
    match outcome {
        Ok(Some(content)) if content.is_empty() => Treatment::Nothing,
        Ok(Some(content)) => Treatment::Write(hold::framed(version, &content), content.len()),
        Ok(None) => Treatment::Nothing,
        Err(error) => Treatment::Fail(error),
    }
}

/// Runs the filters of a subscription over an item: the content to send, or nothing. If some of them need the network,
/// those that decide by themselves are run, and the content is as it was.
pub(crate) fn filter<'c>(
    shard: &Shard,
    prefix: &str,
    subs: &[subscribe::Sub],
    meta: &[(String, String)],
    filters: Filters,
    item: &Item,
    content: &'c [u8],
) -> Result<Option<Cow<'c, [u8]>>, String> {
    let named = subscribe::positions(shard, prefix, subs);
    let positions = subscribe::as_filter_positions(&named);
    let context = Context { sub_meta: meta, pub_meta: &item.payload.meta, channels: &positions };
    if filters.delivery(&context) == Verdict::Drop {
        shard.metrics.dropped_filter.add(1);
        return Ok(None);
    }
    if filters.needs_network() {
        return Ok(Some(Cow::Borrowed(content)));
    }
    match filters.content(&context, content) {
        Ok(content) => Ok(Some(content)),
        Err(error) => {
            shard.metrics.dropped_filter_error.add(1);
            debug!(channel = %item.channel, %error, "An item was dropped for a listener because a filter failed.");
            Err(format!("filter error: {error}"))
        }
    }
}

/// Answers made for one run of items. Long-polls that wait with the same timeout answer on
/// connections of the same kind get the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    made: HashMap<(*const Timeout, u64, bool, bool, bool), Option<Bytes>>,
}

/// Delivers an item to a long-poll: the first that sends something answers it.
pub(crate) fn to_response(shard: &Rc<Shard>, key: Key, item: &Item, answers: &mut Answers) {
    if ask::wait(shard, key, item) {
        return;
    }
    let held = shard.held.borrow();
    let Some(Hold::Response(hold)) = held.get(key) else { return };
    let Some(format) = item.payload.formats.http_response.as_ref() else { return };
    let position = {
        let listeners = shard.listeners.borrow();
        let named =
            |sub: &&subscribe::Sub| listeners.name_of(sub.subscription).is_some_and(|name| **name == *item.channel);
        let Some(sub) = hold.subs.iter().find(named) else { return };
        (sub.filters, sub.prev_id.clone())
    };
    let (filters, prev_id) = position;
    match format.action {
        Action::Send => {}
        Action::Hint => {
            drop(held);
            return update::retry(shard, key, Some(item));
        }
        Action::Close | Action::Refresh => return,
    }
    if let Some(prev_id) = prev_id
        && item.prev_id.as_deref() != Some(&*prev_id)
    {
        shard.gateway.hub.forget_last_id(&item.channel);
        drop(held);
        return update::request(shard, key, Urgency::Low);
    }
    if let Some(wanted) = &format.content_filters
        && !filters.agrees(wanted)
    {
        shard.metrics.dropped_mismatch.add(1);
        debug!(channel = %item.channel, error = filters.mismatch(wanted), "An item does not suit a listener.");
        return;
    }
    let to_head = hold.request.head.is_head();
    let line = &hold.line;
    let answer = if hold.request.dress.is_some() && filters == Filters::default() {
        merged(shard, hold, item, None)
    } else if filters == Filters::default() {
        let keep = line.keep_alive && !line.half_closed;
        let kind = (Rc::as_ptr(&hold.template), item.position.number, line.version == Version::Http11, keep, to_head);
        let made = answers.made.entry(kind).or_insert_with(|| merged(shard, hold, item, None));
        made.clone()
    } else {
        let Timeout { body, .. } = &*hold.template;
        let content = match &format.body {
            waft_grip::item::ResponseBody::Bytes(content) => content.clone(),
            waft_grip::item::ResponseBody::Patch(patch) => patch.apply(body).unwrap_or_default().into(),
        };
        let prefix = &hold.route.options.prefix;
        let filtered = filter(shard, prefix, &hold.subs, &hold.meta.0, filters, item, &content);
        let outcome = filtered.map(|content| content.map(|content| content.into_owned().into()));
        if let Ok(Some(content)) = &outcome
            && filters.needs_network()
        {
            let question = Question {
                route: Arc::clone(&hold.route),
                base: Base::of(&hold.request.head, hold.line.secure),
                meta: Rc::clone(&hold.meta),
                positions: subscribe::positions(shard, prefix, &hold.subs),
                filters,
                item: Arc::clone(item),
                content: Bytes::clone(content),
            };
            drop(held);
            return ask::put(shard, key, Box::new(question));
        }
        drop(held);
        return give_response(shard, key, item, outcome);
    };
    drop(held);
    answer_poll(shard, key, item, answer);
}

/// Gives a long-poll what its filters made of an item.
pub(crate) fn give_response(shard: &Rc<Shard>, key: Key, item: &Item, outcome: Outcome) {
    let mut held = shard.held.borrow_mut();
    let Some(Hold::Response(hold)) = held.get_mut(key) else { return };
    let answer = match outcome {
        Ok(Some(content)) => merged(shard, hold, item, Some(content)),
        Ok(None) => return move_on(shard, hold, item),
        Err(error) if hold.route.options.debug => Some(failed(shard, hold, error)),
        Err(_) => return move_on(shard, hold, item),
    };
    drop(held);
    answer_poll(shard, key, item, answer);
}

/// A long-poll goes on behind an item that it did not get.
fn move_on(shard: &Shard, hold: &mut hold::ResponseHold, item: &Item) {
    let listeners = shard.listeners.borrow();
    let named =
        |sub: &&mut subscribe::Sub| listeners.name_of(sub.subscription).is_some_and(|name| **name == *item.channel);
    if let Some(sub) = hold.subs.iter_mut().find(named).filter(|sub| sub.prev_id.is_some()) {
        sub.prev_id = item.id.as_deref().map(Box::from);
    }
}

/// Answers a long-poll, if there is something to answer with.
fn answer_poll(shard: &Rc<Shard>, key: Key, item: &Item, answer: Option<Bytes>) {
    let Some(answer) = answer else { return };
    if let Some(Hold::Response(hold)) = shard.held.borrow().get(key) {
        shard.tally(&hold.route, |traffic| {
            traffic.deliveries += 1;
            traffic.polls_answered += 1;
            traffic.blocks += shard.block_size().map_or(0, |block| item.payload.response_blocks(block));
        });
    }
    shard.metrics.delivered_response.add(1);
    hold::answer_response(shard, key, &answer);
}

/// The answer to a long-poll whose filter or patch failed.
fn failed(shard: &Shard, hold: &hold::ResponseHold, error: String) -> Bytes {
    let failure = crate::respond::Failure::target(502, error);
    let Answer { status, fields, body } = failure.answer(hold.route.options.debug);
    let reason = waft_http1::reason_phrase(status).to_owned();
    hold::whole_bytes(hold, Whole { status, reason, fields, body }, shard.is_draining())
}

/// The answer to a long-poll: the item over what its target prepared.
fn merged(shard: &Shard, hold: &hold::ResponseHold, item: &Item, content: Option<Bytes>) -> Option<Bytes> {
    let format = item.payload.formats.http_response.as_ref()?;
    let Timeout { parts, body } = &*hold.template;
    let last = shard.is_draining();
    match waft_grip::merge::answer(parts, body, format) {
        Ok((code, reason, headers, body)) => {
            let body = content.unwrap_or(body);
            Some(hold::response_bytes(hold, code, &reason, &headers, &body, last))
        }
        Err(error) => {
            debug!(channel = %item.channel, %error, "A patch did not apply.");
            Some(failed(shard, hold, error.to_string()))
        }
    }
}
