//! Which state a list is about, and one page of it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    request::Query,
    selector::Selector,
    status::ApiError,
    store::{Family, Store},
};

const OPTIONS: &str = "ListOptions";

/// The state that a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// What is now.
    Latest,
    /// Whatever is at hand (`0`).
    Any,
    NotOlderThan(u64),
    Exact(u64),
}

/// What a list asks for, beside its selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub(crate) version: Version,
    pub(crate) limit: Option<usize>,
    pub(crate) start: Option<String>,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Value>>,
    pub(crate) revision: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl Version {
    /// Returns the revision that must exist before the answer can be given.
    pub(crate) fn awaited(self) -> Option<u64> {
        match self {
            Self::Latest | Self::Any => None,
            Self::NotOlderThan(revision) | Self::Exact(revision) => Some(revision),
        }
    }
}

/// Reads a resourceVersion; absent and empty are the same.
pub(crate) fn parse_version(query: &Query) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get("resourceVersion") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

/// Refuses a resourceVersionMatch that is none.
pub(crate) fn check_match(found: &str) -> Result<(), ApiError> {
    if matches!(found, "Exact" | "NotOlderThan") {
        return Ok(());
    }
    let message = format!(
        "Unsupported value: {found:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
    );
    Err(ApiError::invalid_option(
        OPTIONS,
        "resourceVersionMatch",
        "FieldValueNotSupported",
        &message,
    ))
}

pub(crate) fn forbidden_option(field: &str, why: &str) -> ApiError {
    ApiError::invalid_option(
        OPTIONS,
        field,
        "FieldValueForbidden",
        &format!("Forbidden: {why}"),
    )
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        query.number("timeoutSeconds")?;
        let limit = query.number("limit")?.unwrap_or_default();
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        let found = query.get("resourceVersionMatch");
        if let Some(found) = found {
            check_found(found, query)?;
        }
        if query.flag("sendInitialEvents").is_some() {
            let why = "sendInitialEvents is forbidden for list";
            return Err(forbidden_option("sendInitialEvents", why));
        }
        let version = parse_version(query)?;
        if let Some(token) = query.get("continue") {
            if version.is_some_and(|version| version > 0) {
                let message = "specifying resource version is not allowed when using continue";
                return Err(ApiError::bad_request(message));
            }
            let (version, start) = parse_token(token)?;
            return Ok(Self {
                version,
                limit,
                start: Some(start),
            });
        }
        let version = match (version, found) {
            (None, _) => Version::Latest,
            (Some(0), _) => Version::Any,
            (Some(revision), Some("Exact")) => Version::Exact(revision),
            // Only a page needs one state to go on from.
            (Some(revision), None) if limit.is_some() => Version::Exact(revision),
            (Some(revision), _) => Version::NotOlderThan(revision),
        };
        // The server's cache answers "any" as a whole.
        let limit = limit.filter(|_| version != Version::Any);
        Ok(Self {
            version,
            limit,
            start: None,
        })
    }

    /// Cuts the page out of the store.
    pub(crate) fn page(
        &self,
        store: &Store,
        family: &Family,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<Page, ApiError> {
        let (all, revision) = match self.version {
            Version::Exact(revision) => {
                let listed = store.list_at(family, namespace, revision);
                let listed = listed.map_err(|_| self.expired())?;
                (listed, revision)
            }
            _ => (store.list(family, namespace), store.revision()),
        };
        let prefix = namespace
            .map(|namespace| format!("{namespace}/"))
            .unwrap_or_default();
        let start = format!("{prefix}{}", self.start.as_deref().unwrap_or_default());
        let mut rest = all
            .into_iter()
            .filter(|(path, object)| *path >= start && selector.matches(object));
        let Some(limit) = self.limit else {
            let items = rest.map(|(_, object)| object).collect();
            return Ok(Page {
                items,
                revision,
                next: None,
                remaining: None,
            });
        };
        let mut items = Vec::new();
        let mut last = String::new();
        for (path, object) in rest.by_ref().take(limit) {
            items.push(object);
            last = path;
        }
        let remaining = rest.count();
        if remaining == 0 {
            return Ok(Page {
                items,
                revision,
                next: None,
                remaining: None,
            });
        }
        let last = last.strip_prefix(&prefix).unwrap_or(&last);
        Ok(Page {
            items,
            revision,
            next: Some(token(Some(revision), &format!("{last}\0"))),
            remaining: selector.is_everything().then_some(remaining),
        })
    }

    fn expired(&self) -> ApiError {
        match &self.start {
            Some(start) => ApiError::expired_continue(&token(None, start)),
            None => ApiError::expired("The resourceVersion for the provided list is too old."),
        }
    }
}

fn check_found(found: &str, query: &Query) -> Result<(), ApiError> {
    let field = "resourceVersionMatch";
    let Some(version) = query.get("resourceVersion") else {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(forbidden_option(field, why));
    };
    if query.get("continue").is_some() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        return Err(forbidden_option(field, why));
    }
    check_match(found)?;
    if found == "Exact" && version == "0" {
        let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        return Err(forbidden_option(field, why));
    }
    Ok(())
}

/// Writes a continue token; without a revision it means "the rest, as it is by then".
fn token(revision: Option<u64>, start: &str) -> String {
    let revision = revision.map_or(json!(-1), |revision| json!(revision));
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parse_token(text: &str) -> Result<(Version, String), ApiError> {
    let invalid = |why: &str| ApiError::bad_request(format!("invalid continue token: {why}"));
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| invalid("continue key is not valid: not base64"))?;
    let token: Value = serde_json::from_slice(&bytes)
        .map_err(|_| invalid("continue key is not valid: not JSON"))?;
    let start = token["start"].as_str().filter(|start| !start.is_empty());
    let start = start.ok_or_else(|| invalid("continue key is not valid: missing start"))?;
    let version = match token["rv"].as_i64() {
        Some(-1) => Version::Latest,
        Some(revision) if revision > 0 => Version::Exact(revision.unsigned_abs()),
        _ => return Err(invalid("incorrect encoded start resourceVersion")),
    };
    Ok((version, start.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<ListOptions, ApiError> {
        let uri = format!("/x?{query}").parse().unwrap();
        ListOptions::parse(&Query::parse(&uri))
    }

    #[test]
    fn versions_mean_what_the_documentation_says() {
        let table = [
            ("", Version::Latest),
            ("resourceVersion=", Version::Latest),
            ("resourceVersion=0", Version::Any),
            ("resourceVersion=5", Version::NotOlderThan(5)),
            ("resourceVersion=5&limit=1", Version::Exact(5)),
            (
                "resourceVersion=5&resourceVersionMatch=Exact",
                Version::Exact(5),
            ),
            (
                "resourceVersion=5&resourceVersionMatch=NotOlderThan&limit=1",
                Version::NotOlderThan(5),
            ),
        ];
        for (query, expected) in table {
            assert_eq!(options(query).unwrap().version, expected, "{query}");
        }
    }

    #[test]
    fn combinations_without_meaning_are_refused() {
        for (query, code) in [
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422),
            ("resourceVersion=1&resourceVersionMatch=Foo", 422),
            ("sendInitialEvents=true", 422),
            ("resourceVersion=x", 400),
            ("limit=x", 400),
            ("continue=x", 400),
        ] {
            assert_eq!(options(query).unwrap_err().code, code, "{query}");
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        assert_eq!(
            parse_token(&token(Some(7), "a\0")).unwrap(),
            (Version::Exact(7), "a\0".into())
        );
        assert_eq!(
            parse_token(&token(None, "a\0")).unwrap(),
            (Version::Latest, "a\0".into())
        );
    }
}
