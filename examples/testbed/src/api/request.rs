//! A request, parsed: who, what, where; the server's own reading of a path.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use super::status::ApiError;

const ACCEPTED: &str = "only the following media types are accepted: application/json";

/// What a resource path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// The query, decoded; of repeated keys the first counts, as in the real server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

/// How the client wants objects to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    /// Of one object, or of an event.
    Metadata,
    /// Of a list.
    MetadataList,
}

impl Target {
    /// Reads `/api/v1/…` and `/apis/GROUP/VERSION/…`; anything else is no resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut words: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|word| percent_decode_str(word).decode_utf8_lossy().into_owned())
            .collect();
        if words.last().is_some_and(String::is_empty) {
            words.pop();
        }
        let mut words = words.into_iter();
        let group = match words.next()?.as_str() {
            "api" => String::new(),
            "apis" => words.next()?,
            _ => return None,
        };
        let version = words.next()?;
        let mut rest: Vec<String> = words.collect();
        let mut target = Self {
            group,
            version,
            ..Self::default()
        };
        let is_inside = rest.len() >= 3
            && rest[0] == "namespaces"
            && !(target.group.is_empty() && matches!(rest[2].as_str(), "status" | "finalize"));
        if is_inside {
            target.namespace = Some(rest.remove(1));
            rest.remove(0);
        }
        let mut rest = rest.into_iter();
        target.plural = rest.next()?;
        target.name = rest.next();
        let tail: Vec<String> = rest.collect();
        if !tail.is_empty() {
            target.subresource = Some(tail.join("/"));
        }
        Some(target)
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Query {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let mut pairs = BTreeMap::new();
        for pair in uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.entry(decode(key)).or_insert_with(|| decode(value));
        }
        Self(pairs)
    }

    /// Returns a value that is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Reads a boolean the way the server does: there and neither `false` nor `0`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.flag(key).unwrap_or(false)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.0
            .get(key)
            .map(|value| !matches!(value.as_str(), "false" | "0"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        })
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

impl Form {
    /// Picks the first acceptable form of the Accept header.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        let accept = headers
            .get(http::header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("*/*");
        accept
            .split(',')
            .find_map(Self::of_clause)
            .ok_or_else(|| ApiError::not_acceptable(ACCEPTED))
    }

    fn of_clause(clause: &str) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next()?;
        let shape = parts.find_map(|part| part.strip_prefix("as="));
        if !matches!(media, "" | "*/*" | "application/*" | "application/json") {
            return None;
        }
        match shape {
            None => Some(Self::Object),
            Some("Table") => Some(Self::Table),
            Some("PartialObjectMetadata") => Some(Self::Metadata),
            Some("PartialObjectMetadataList") => Some(Self::MetadataList),
            Some(_) => None,
        }
    }
}

/// Names what a request does, in Kubernetes' words.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> &'static str {
    let is_collection = target.name.is_none();
    match *method {
        Method::GET | Method::HEAD if is_collection && query.is_set("watch") => "watch",
        Method::GET | Method::HEAD if is_collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_collection => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_the_real_server_reads_in_them() {
        let table = [
            ("/api/v1/pods", "||pods||"),
            ("/api/v1/namespaces", "||namespaces||"),
            ("/api/v1/namespaces/a", "||namespaces|a|"),
            ("/api/v1/namespaces/a/status", "||namespaces|a|status"),
            ("/api/v1/namespaces/a/finalize", "||namespaces|a|finalize"),
            ("/api/v1/namespaces/a/pods", "|a|pods||"),
            ("/api/v1/namespaces/a/pods/p/log", "|a|pods|p|log"),
            (
                "/api/v1/namespaces/a/services/s/proxy/x/y",
                "|a|services|s|proxy/x/y",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d",
                "apps|a|deployments|d|",
            ),
            ("/api/v1/nodes/n%2Fx", "||nodes|n/x|"),
        ];
        for (path, expected) in table {
            let target = Target::parse(path).unwrap();
            let shown = [
                target.group,
                target.namespace.unwrap_or_default(),
                target.plural,
                target.name.unwrap_or_default(),
                target.subresource.unwrap_or_default(),
            ]
            .join("|");
            assert_eq!(shown, expected, "{path}");
        }
        for path in ["/", "/api", "/apis/apps", "/apis/apps/v1", "/version"] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_first_acceptable_form_is_taken() {
        let table = [
            ("application/json", Some(Form::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Form::Table),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Object),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Form::MetadataList),
            ),
            ("application/json;as=Nope", None),
            ("image/png", None),
            ("*/*", Some(Form::Object)),
        ];
        for (accept, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert("accept", accept.parse().unwrap());
            assert_eq!(Form::parse(&headers).ok(), expected, "{accept}");
        }
    }
}
