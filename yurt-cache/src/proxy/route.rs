//! Where an answer comes from: a pure table of request, reachability and mirror.

use super::exchange::Exchange;
use crate::api::request::{ApiRequest, Options, Revision, RevisionMatch, Shape, Target, Verb};
use crate::api::{Freshness, Scope};
use crate::authorize::{LocalWrite, Permit};
use crate::upstream::Link;

/// What the hub does with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// To the cloud as the caller; what comes back may be remembered.
    Forward(Remember),
    /// To the cloud, and then both directions raw.
    Upgrade,
    /// From the mirror of this scope, which is started and waited for if need be.
    Mirror(&'a Scope, Freshness),
    /// The stored object.
    Object,
    /// The stored document.
    Document,
    /// A write that the node itself can stand behind.
    LocalWrite(LocalWrite, Permit),
    /// A token for a pod: the cloud's, which is kept, or the node's own if the link breaks.
    Token(Permit),
    /// The cloud is needed and away.
    Unavailable,
    /// The hub cannot make what the caller accepts.
    NotAcceptable,
}

/// What of a forwarded answer is kept for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remember {
    Nothing,
    /// The object, by its name.
    Object,
    /// The scope: a mirror is started beside the answer.
    Scope,
    Document,
}

/// The mirror that can answer for the request's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Have {
    /// None, or the request has no scope of its own.
    Nothing,
    /// It is fetching its first list.
    Syncing,
    /// It is synced, at this revision.
    Synced(u64),
}

impl Route<'_> {
    /// Returns whether the node answers it from what it has.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Mirror(..) | Self::Object | Self::Document => true,
            Self::Forward(_)
            | Self::Upgrade
            | Self::LocalWrite(..)
            | Self::Token(_)
            | Self::Unavailable
            | Self::NotAcceptable => false,
        }
    }
}

/// Decides. `local` is what the request is to the node itself, if it is a write.
pub(crate) fn route<'a>(
    exchange: &'a Exchange,
    link: Link,
    have: Have,
    local: Option<(LocalWrite, Permit)>,
) -> Route<'a> {
    match (link, local) {
        (Link::Up, Some((LocalWrite::TokenRequest, permit))) => Route::Token(permit),
        (Link::Up, _) => online(exchange, have),
        (Link::Cut, Some((write, permit))) => Route::LocalWrite(write, permit),
        (Link::Cut, None) => offline(exchange),
    }
}

fn online(exchange: &Exchange, have: Have) -> Route<'_> {
    let (request, scope) = (&exchange.api, exchange.scope());
    if request.is_upgrade {
        return Route::Upgrade;
    }
    let nothing = Route::Forward(Remember::Nothing);
    let path = match (&request.target, request.verb) {
        (Target::Document, Verb::Get) => return Route::Forward(Remember::Document),
        (Target::Document | Target::Other, _) => return nothing,
        (Target::Resource(path), _) => path,
    };
    if exchange.chain.is_some() && request.shape.is_none() {
        return Route::NotAcceptable;
    }
    if path.subresource.is_some() || request.options.not_a_number.is_some() {
        return nothing;
    }
    if request.options.has_unknown && request.verb != Verb::Write && exchange.chain.is_none() {
        return nothing;
    }
    if exchange.chain.is_some() {
        return filtered(request, scope, have);
    }
    match (request.verb, request.shape) {
        (Verb::Write, _) => Route::Forward(Remember::Object),
        (Verb::Get, Some(Shape::Object))
            if request.options.revision == Revision::Zero && matches!(have, Have::Synced(_)) =>
        {
            Route::Object
        }
        (Verb::Get, _) => Route::Forward(Remember::Object),
        (Verb::List, Some(Shape::Table)) => Route::Forward(Remember::Scope),
        (Verb::Watch, Some(Shape::Table)) => nothing,
        (Verb::List | Verb::Watch, None) => nothing,
        (Verb::List, Some(_)) => scope.map_or(nothing, |scope| list(&request.options, scope, have)),
        (Verb::Watch, Some(_)) => scope.map_or(nothing, |scope| watch(&request.options, scope)),
    }
}

/// What filters have to look at: lists and watches come from a mirror, single objects are read whole, and
/// nothing comes that is not JSON. What the server refuses it may refuse itself.
fn filtered<'a>(request: &ApiRequest, scope: Option<&'a Scope>, have: Have) -> Route<'a> {
    let options = &request.options;
    match (request.verb, scope) {
        (Verb::Get, _) if options.revision == Revision::Zero && matches!(have, Have::Synced(_)) => {
            Route::Object
        }
        (Verb::Get | Verb::Write, _) => Route::Forward(Remember::Object),
        (Verb::Watch, Some(scope)) => watch(options, scope),
        (Verb::List, Some(scope)) => filtered_list(options)
            .map_or(Route::Forward(Remember::Nothing), |fresh| {
                Route::Mirror(scope, fresh)
            }),
        (Verb::List | Verb::Watch, None) => Route::Forward(Remember::Nothing),
    }
}

/// Returns what the mirror must show, `None` for what no server answers.
fn filtered_list(options: &Options) -> Option<Freshness> {
    if options.initial_events.is_some() {
        return None;
    }
    if options.continue_token.is_some() {
        return Some(Freshness::Any);
    }
    match (&options.revision, &options.revision_match) {
        (Revision::Unset, None) => Some(Freshness::Latest),
        (Revision::Zero, None | Some(RevisionMatch::NotOlderThan)) => Some(Freshness::Any),
        (Revision::At(revision), Some(RevisionMatch::Exact)) => Some(Freshness::Exactly(*revision)),
        (Revision::At(revision), None | Some(RevisionMatch::NotOlderThan)) => {
            Some(Freshness::AtLeast(*revision))
        }
        (
            Revision::Unset | Revision::Zero | Revision::At(_) | Revision::Invalid(_),
            Some(_) | None,
        ) => None,
    }
}

fn list<'a>(options: &Options, scope: &'a Scope, have: Have) -> Route<'a> {
    if options.initial_events.is_some() {
        return Route::Forward(Remember::Nothing);
    }
    if let Some(token) = &options.continue_token {
        // A revision beside a token is the server's to refuse.
        let is_alone = options.revision == Revision::Unset && options.revision_match.is_none();
        let is_here = match have {
            Have::Synced(at) => is_alone && crate::answer::continues_at(token) == Some(at),
            Have::Nothing | Have::Syncing => false,
        };
        return if is_here || crate::answer::is_our_token(token) {
            Route::Mirror(scope, Freshness::Any)
        } else {
            Route::Forward(Remember::Nothing)
        };
    }
    match (&options.revision, &options.revision_match, options.limit) {
        (Revision::Zero, None | Some(RevisionMatch::NotOlderThan), _) => {
            Route::Mirror(scope, Freshness::Any)
        }
        (Revision::At(revision), None, 0)
        | (Revision::At(revision), Some(RevisionMatch::NotOlderThan), _) => match have {
            Have::Synced(at) if at < *revision => Route::Forward(Remember::Scope),
            _ => Route::Mirror(scope, Freshness::AtLeast(*revision)),
        },
        (Revision::Unset, None, _) => Route::Mirror(scope, Freshness::Latest),
        _ => Route::Forward(Remember::Scope),
    }
}

fn watch<'a>(options: &Options, scope: &'a Scope) -> Route<'a> {
    let is_valid = match (&options.initial_events, &options.revision_match) {
        (None, None) => true,
        (Some(_), Some(RevisionMatch::NotOlderThan)) => true,
        (None | Some(_), _) => false,
    };
    if !is_valid {
        return Route::Forward(Remember::Nothing);
    }
    match &options.revision {
        Revision::Unset => Route::Mirror(scope, Freshness::Latest),
        Revision::Zero => Route::Mirror(scope, Freshness::Any),
        // Without initial events a revision to come is waited for in silence.
        Revision::At(revision) if options.initial_events == Some(true) => {
            Route::Mirror(scope, Freshness::AtLeast(*revision))
        }
        Revision::At(_) => Route::Mirror(scope, Freshness::Any),
        Revision::Invalid(_) => Route::Forward(Remember::Nothing),
    }
}

fn offline(exchange: &Exchange) -> Route<'_> {
    let (request, scope) = (&exchange.api, exchange.scope());
    let path = match (&request.target, request.verb) {
        (Target::Document, Verb::Get) => return Route::Document,
        (Target::Document | Target::Other, _) => return Route::Unavailable,
        (Target::Resource(path), _) => path,
    };
    if request.is_upgrade || request.verb == Verb::Write {
        return Route::Unavailable;
    }
    if request.options.has_unknown && exchange.chain.is_none() {
        return Route::Unavailable;
    }
    if !matches!(path.subresource.as_deref(), None | Some("status")) {
        return Route::Unavailable;
    }
    if request.shape.is_none() {
        return Route::NotAcceptable;
    }
    match (request.verb, scope) {
        (Verb::Get, _) => Route::Object,
        (Verb::List | Verb::Watch, Some(scope)) => {
            Route::Mirror(scope, offline_freshness(request.verb, &request.options))
        }
        (Verb::List | Verb::Watch, None) | (Verb::Write, _) => Route::Unavailable,
    }
}

fn offline_freshness(verb: Verb, options: &Options) -> Freshness {
    let is_watch_of_changes = verb == Verb::Watch && options.initial_events != Some(true);
    match (&options.revision, &options.revision_match) {
        (Revision::At(revision), Some(RevisionMatch::Exact)) => Freshness::Exactly(*revision),
        (Revision::At(revision), _) if !is_watch_of_changes => Freshness::AtLeast(*revision),
        _ => Freshness::Any,
    }
}

#[cfg(test)]
mod tests;
