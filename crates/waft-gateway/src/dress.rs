//! How answers are dressed for scripts of other sites: with headers, or as a script.

use bytes::Bytes;
use waft_http1::{Fields, RequestHead, reason_phrase};

use crate::cors::Asked;
use crate::jsonp::Call;
use crate::service::Answer;

/// What the answers to one request are dressed with.
#[derive(Clone, Debug)]
pub(crate) struct Dress {
    asked: Asked,
    /// The answer is a script.
    pub(crate) call: Option<Call>,
}

/// A response whose body is at hand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
}

/// The type of a script.
pub(crate) const SCRIPT: &str = "application/javascript";

impl Dress {
    /// For the answers to `head`.
    pub(crate) fn of(head: &RequestHead, call: Option<Call>) -> Self {
        Self { asked: Asked::of(head), call }
    }

    /// Adds the headers to a response that is not wrapped.
    pub(crate) fn apply(&self, fields: &mut Fields) {
        self.asked.apply(fields);
    }

    /// A whole response, dressed.
    pub(crate) fn whole(&self, mut response: Whole) -> Whole {
        let Some(call) = &self.call else {
            self.asked.apply(&mut response.fields);
            return response;
        };
        let Whole { status, reason, mut fields, body } = response;
        let body = call.whole(status, &reason, &fields, &body).into();
        fields.set("Content-Type", SCRIPT);
        Whole { status: 200, reason: "OK".to_owned(), fields, body }
    }

    /// An answer of waft's own, dressed.
    pub(crate) fn own(&self, answer: Answer) -> Answer {
        let Answer { status, fields, body } = answer;
        let whole = self.whole(Whole { status, reason: reason_phrase(status).to_owned(), fields, body });
        Answer { status: whole.status, fields: whole.fields, body: whole.body }
    }
}
