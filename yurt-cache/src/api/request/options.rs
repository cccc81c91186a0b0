//! What the query of a request asks for.

use percent_encoding::percent_decode_str;

/// The query, as Kubernetes' `ListOptions` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) revision: Revision,
    pub(crate) revision_match: Option<RevisionMatch>,
    pub(crate) limit: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) allows_bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
    pub(crate) include_object: Option<String>,
    /// A write is only tried: nothing is to change. Whatever `dryRun` says, as no server takes another word than `All`.
    pub(crate) is_dry_run: bool,
    /// A number that is none.
    pub(crate) not_a_number: Option<String>,
    /// There is an option that the hub does not know: only the server can honour it.
    pub(crate) has_unknown: bool,
}

/// `resourceVersion`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Revision {
    #[default]
    Unset,
    /// Any will do.
    Zero,
    At(u64),
    Invalid(String),
}

/// `resourceVersionMatch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RevisionMatch {
    Exact,
    NotOlderThan,
    Invalid(String),
}

impl Options {
    /// Reads a query; also returns whether it asks for a watch. Of a name that comes twice the first counts.
    pub(super) fn read(query: &str) -> (Self, bool) {
        let mut options = Self::default();
        let mut is_watch = false;
        let pairs: Vec<(String, String)> = query
            .split('&')
            // Go does not take `;` between pairs any more, and drops a pair with one.
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .map(decode_pair)
            .collect();
        for (name, value) in pairs.into_iter().rev() {
            match name.as_str() {
                "labelSelector" => options.labels = value,
                "fieldSelector" => options.fields = value,
                "dryRun" => options.is_dry_run = !value.is_empty(),
                "resourceVersion" => options.revision = Revision::read(value),
                "resourceVersionMatch" => options.revision_match = RevisionMatch::read(value),
                "limit" if value.is_empty() => {}
                "limit" => match value.parse::<i64>() {
                    Ok(limit) => options.limit = u64::try_from(limit).unwrap_or(0),
                    Err(_) => options.not_a_number = Some(value),
                },
                "continue" => {
                    options.continue_token = Some(value).filter(|token| !token.is_empty())
                }
                "timeoutSeconds" if value.is_empty() => {}
                "timeoutSeconds" => match value.parse::<i64>() {
                    Ok(seconds) => {
                        options.timeout_seconds =
                            u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
                    }
                    Err(_) => options.not_a_number = Some(value),
                },
                "allowWatchBookmarks" => options.allows_bookmarks = is_true(&value),
                "sendInitialEvents" => options.initial_events = Some(is_true(&value)),
                "includeObject" => options.include_object = Some(value),
                "watch" => is_watch = is_true(&value),
                // How the text is set, and how long the caller waits.
                "pretty" | "timeout" => {}
                _ => options.has_unknown = true,
            }
        }
        (options, is_watch)
    }
}

impl Revision {
    fn read(value: String) -> Self {
        match value.as_str() {
            "" => Self::Unset,
            "0" => Self::Zero,
            _ => value.parse().map_or(Self::Invalid(value), Self::At),
        }
    }
}

impl RevisionMatch {
    fn read(value: String) -> Option<Self> {
        match value.as_str() {
            "" => None,
            "Exact" => Some(Self::Exact),
            "NotOlderThan" => Some(Self::NotOlderThan),
            _ => Some(Self::Invalid(value)),
        }
    }
}

fn decode_pair(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (decode(name), decode(value))
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// As the server reads booleans of a query: everything but `0` and `false` is true, also nothing.
fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "false")
}
