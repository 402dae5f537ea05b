//! Filters (GRIP section 8): what a subscription wants done with an item before it is delivered.

mod build_id;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

pub use self::build_id::BuildId;
pub use self::template::{MAX_ARGUMENT, TemplateError};

/// Filters kept of one subscription; see [`crate::instruct::MAX_FILTERS`], which refuses more before they come here.
pub const MAX_FILTERS: usize = 5;

/// One filter that waft knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Drops what the listener itself sent.
    SkipSelf,
    /// Drops what is not for this user.
    SkipUsers,
    /// Drops what needs another subscription.
    RequireSub,
    /// Writes event ids into content and response bodies.
    BuildId,
    /// Writes values of the subscription's metadata into content.
    VarSubst,
    /// Asks a web service whether to deliver.
    HttpCheck,
    /// Lets a web service change the content.
    HttpModify,
}

/// The filters of a subscription in their order, four bytes in size as there is one for each listener.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Filters(u32);

/// What the rules of a delivery look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Metadata of the subscription, from `Grip-Set-Meta` or its equivalents.
    pub sub_meta: &'a [(String, String)],
    /// Metadata of the item.
    pub pub_meta: &'a [(String, String)],
    /// All channels of the listener.
    pub channels: &'a [ChannelPosition<'a>],
}

/// A channel of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPosition<'a> {
    /// The name as the backend gave it, without the route prefix.
    pub name: &'a str,
    /// The listener's position before the current item.
    pub prev_id: Option<&'a str>,
}

/// Whether an item is delivered to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Send,
    /// It is not; the listener stays.
    Drop,
}

/// Why a filter cannot do its work. The item is then dropped for the listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// `build-id` needs a template that the subscription does not have.
    #[error("no sub meta 'id_format'")]
    NoIdFormat,
    /// `build-id` knows hex alone.
    #[error("unsupported encoding: {0}")]
    Encoding(String),
    /// A template or content with directives is malformed.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl Filter {
    const ALL: [Self; 7] = [
        Self::SkipSelf,
        Self::SkipUsers,
        Self::RequireSub,
        Self::BuildId,
        Self::VarSubst,
        Self::HttpCheck,
        Self::HttpModify,
    ];

    /// The filter called `name`, if it is one that waft knows.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.name() == name)
    }

    /// The name in subscriptions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkipSelf => "skip-self",
            Self::SkipUsers => "skip-users",
            Self::RequireSub => "require-sub",
            Self::BuildId => "build-id",
            Self::VarSubst => "var-subst",
            Self::HttpCheck => "http-check",
            Self::HttpModify => "http-modify",
        }
    }

    /// Whether the filter changes message content, and so counts for `content-filters`.
    #[must_use]
    pub const fn targets_content(self) -> bool {
        matches!(self, Self::BuildId | Self::VarSubst | Self::HttpModify)
    }

    /// The content after this filter. Filters that do not act on it, and those that need the network, change nothing.
    ///
    /// # Errors
    /// [`FilterError`]; the item is to be dropped for this listener.
    pub fn change<'c>(self, context: &Context<'_>, content: Cow<'c, [u8]>) -> Result<Cow<'c, [u8]>, FilterError> {
        match self {
            Self::BuildId => {
                let mut out = Vec::with_capacity(content.len() + 16);
                let mut build_id = BuildId::new(context)?;
                build_id.feed(&content, &mut out)?;
                build_id.finish()?;
                Ok(Cow::Owned(out))
            }
            Self::VarSubst => Ok(Cow::Owned(template::substitute(&content, |name| meta(context.sub_meta, name))?)),
            Self::SkipSelf | Self::SkipUsers | Self::RequireSub | Self::HttpCheck | Self::HttpModify => Ok(content),
        }
    }

    const fn needs_network(self) -> bool {
        matches!(self, Self::HttpCheck | Self::HttpModify)
    }

    /// A number from 1, for packing.
    const fn code(self) -> u32 {
        self as u32 + 1
    }
}

impl Filters {
    /// Reads names in order. Unknown names are ignored, and known ones beyond [`MAX_FILTERS`].
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut filters = Self::default();
        for filter in names.into_iter().filter_map(Filter::from_name).take(MAX_FILTERS) {
            filters.push(filter);
        }
        filters
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The filters in order.
    pub fn iter(self) -> impl Iterator<Item = Filter> + Clone {
        (0..MAX_FILTERS).map_while(move |index| {
            let code = self.0 >> (4 * index) & 0xf;
            Filter::ALL.into_iter().find(|filter| filter.code() == code)
        })
    }

    /// Whether a filter acts on the initial body and on next-link bodies; see [`BuildId`].
    #[must_use]
    pub fn targets_response_content(self) -> bool {
        self.iter().any(|filter| filter == Filter::BuildId)
    }

    /// Whether a filter acts on message content.
    #[must_use]
    pub fn targets_content(self) -> bool {
        self.iter().any(Filter::targets_content)
    }

    /// Whether a filter asks a web service, which the functions of this module do not do.
    #[must_use]
    pub fn needs_network(self) -> bool {
        self.iter().any(Filter::needs_network)
    }

    /// Decides by the filters that act on delivery. Those that need the network count as send.
    #[must_use]
    pub fn delivery(self, context: &Context<'_>) -> Verdict {
        let drops = |filter| match filter {
            Filter::SkipSelf => skip_self(context),
            Filter::SkipUsers => skip_users(context),
            Filter::RequireSub => require_sub(context),
            Filter::BuildId | Filter::VarSubst | Filter::HttpCheck | Filter::HttpModify => false,
        };
        if self.iter().any(drops) { Verdict::Drop } else { Verdict::Send }
    }

    /// The content after the filters that act on it, each on the output of the one before. Borrowed if there are none.
    /// Those that need the network change nothing here.
    ///
    /// # Errors
    /// [`FilterError`]; the item is to be dropped for this listener.
    pub fn content<'c>(self, context: &Context<'_>, content: &'c [u8]) -> Result<Cow<'c, [u8]>, FilterError> {
        self.iter().try_fold(Cow::Borrowed(content), |content, filter| filter.change(context, content))
    }

    /// Whether the content filters an item was prepared for are those of this subscription, in the same order.
    #[must_use]
    pub fn agrees(self, content_filters: &[String]) -> bool {
        self.content_names().eq(content_filters.iter().map(String::as_str))
    }

    /// The text for a disagreement, `content filter mismatch: subscription=a,b message=c`.
    #[must_use]
    pub fn mismatch(self, content_filters: &[String]) -> String {
        let own: Vec<&str> = self.content_names().collect();
        format!("content filter mismatch: subscription={} message={}", own.join(","), content_filters.join(","))
    }

    fn content_names(self) -> impl Iterator<Item = &'static str> {
        self.iter().filter(|filter| filter.targets_content()).map(Filter::name)
    }

    fn push(&mut self, filter: Filter) {
        let used = self.iter().count();
        self.0 |= filter.code() << (4 * used);
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn skip_self(context: &Context<'_>) -> bool {
    let user = meta(context.sub_meta, "user").unwrap_or_default();
    !user.is_empty() && meta(context.pub_meta, "sender") == Some(user)
}

fn skip_users(context: &Context<'_>) -> bool {
    let user = meta(context.sub_meta, "user").unwrap_or_default();
    let users = meta(context.pub_meta, "skip_users").unwrap_or_default();
    !user.is_empty() && users.split(',').any(|skipped| skipped.trim() == user)
}

fn require_sub(context: &Context<'_>) -> bool {
    let required = meta(context.pub_meta, "require_sub").unwrap_or_default();
    !required.is_empty() && !context.channels.iter().any(|channel| channel.name == required)
}

fn meta<'a>(meta: &'a [(String, String)], name: &str) -> Option<&'a str> {
    meta.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}
