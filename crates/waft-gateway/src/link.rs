//! Next links and gone links of held clients.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;
use waft_grip::instruct::{Instruct, is_instruct};
use waft_route::Route;

use crate::errand::{self, Errand, ErrandError, Reply};
use crate::place::Base;
use crate::relay::ResponseBody;
use crate::shard::Shard;

/// What a next link led to.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it was found: what its own links are relative to.
    pub(crate) base: Base,
    pub(crate) instruct: Instruct,
    pub(crate) body: ResponseBody,
}

/// Why a link could not be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("`{0}` is no link")]
    Malformed(String),
    #[error(transparent)]
    Errand(#[from] ErrandError),
    #[error("the target answered with status {0}")]
    Status(u16),
    #[error("{0}")]
    Instruct(String),
}

impl LinkError {
    /// Whether another try may help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Errand(error) => error.is_passing(),
            Self::Status(_) => true,
            Self::Malformed(_) | Self::Instruct(_) => false,
        }
    }
}

/// Follows a next link, with several tries while nothing of it has been used.
pub(crate) async fn fetch_again(
    shard: &Rc<Shard>,
    route: &Arc<Route>,
    base: &Base,
    link: &str,
    last: &[(String, String)],
) -> Result<Page, LinkError> {
    let retries = shard.gateway.settings().limits.link_retries_max;
    let mut tried = 0;
    loop {
        match fetch(shard, route, base, link, last).await {
            Err(error) if error.is_passing() && tried < retries && !shard.is_draining() => {
                debug!(route = %route.id, link, %error, "A next link could not be followed yet.");
                let wait = Duration::from_millis((1000 << tried.min(6)) + fastrand::u64(0..1000));
                tokio::time::sleep(wait).await;
                tried += 1;
            }
            other => return other,
        }
    }
}

async fn fetch(
    shard: &Rc<Shard>,
    route: &Arc<Route>,
    base: &Base,
    link: &str,
    last: &[(String, String)],
) -> Result<Page, LinkError> {
    let place = base.join(link).ok_or_else(|| LinkError::Malformed(link.to_owned()))?;
    let most = shard.share_of(shard.gateway.settings().limits.link_fetches_max);
    // Held until the head is there: a slow client must not keep others from their pages.
    let turn = shard.link_places.take(most).await;
    shard.metrics.link_fetches.add(1);
    let errand = Errand { method: "GET", place: &place, last, fields: &[], body: Bytes::new(), limit: ANSWER_LIMIT };
    let Reply { status, reason, fields, body } = errand::run(shard, route, &errand).await?;
    drop(turn);
    if !(200..300).contains(&status) {
        body.release(shard);
        return Err(LinkError::Status(status));
    }
    let instruct = if is_instruct(fields.iter()) {
        Instruct::from_head(status, &reason, fields.iter())
            .map_err(|error| LinkError::Instruct(error.to_string()))
            .and_then(|instruct| match instruct.needs_json_body() {
                true => Err(LinkError::Instruct("a next link cannot answer with a JSON instruct".to_owned())),
                false => Ok(instruct),
            })
    } else {
        Ok(Instruct::default())
    };
    match instruct {
        Ok(instruct) => Ok(Page { base: place, instruct, body }),
        Err(error) => {
            body.release(shard);
            Err(error)
        }
    }
}

/// Tells a target that a client has gone. Nothing depends on its answer.
pub(crate) fn tell_gone(shard: &Rc<Shard>, route: &Arc<Route>, base: &Base, link: &str) {
    let Some(place) = base.join(link) else { return debug!(link, "A gone link is no link and was not followed.") };
    let (shard, route) = (Rc::clone(shard), Arc::clone(route));
    tokio::task::spawn_local(async move {
        let most = shard.share_of(shard.gateway.settings().limits.link_fetches_max);
        let _turn = shard.link_places.take(most).await;
        let errand =
            Errand { method: "POST", place: &place, last: &[], fields: &[], body: Bytes::new(), limit: ANSWER_LIMIT };
        match errand::run(&shard, &route, &errand).await {
            Ok(Reply { mut body, .. }) => {
                let _content = body.read_all(&shard, 64 << 10).await;
                body.release(&shard);
            }
            Err(error) => debug!(%error, "A target could not be told that a client has gone."),
        }
    });
}

/// How long the answer to a link may take to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
