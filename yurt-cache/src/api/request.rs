//! What a request asks for, read from its method, path, query and headers once.

use http::header::{ACCEPT, UPGRADE};
use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use super::Resource;

/// A request as the hub understands it.
#[derive(Clone, Debug)]
pub(crate) struct ApiRequest {
    pub(crate) method: Method,
    pub(crate) verb: Verb,
    pub(crate) target: Target,
    pub(crate) options: Options,
    /// The shape of the answer that the caller prefers of those that the hub can make.
    pub(crate) shape: Option<Shape>,
    pub(crate) is_upgrade: bool,
}

/// Kubernetes' verb, as far as the hub tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Write,
}

/// What the path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(Path),
    /// Discovery, OpenAPI, version: what clients need before they can ask for anything.
    Document,
    Other,
}

/// A path that names a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    Object,
    Metadata,
    Table,
}

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

impl ApiRequest {
    /// Returns whether a read takes what was there at any time.
    pub(crate) fn takes_any_version(&self) -> bool {
        let is_resumed =
            self.verb == Verb::Watch && matches!(self.options.revision, Revision::At(_));
        is_resumed || self.options.revision == Revision::Zero
    }

    /// Reads a request.
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let (mut target, is_watch_path) = Target::read(uri.path());
        if headers
            .keys()
            .any(|name| name.as_str().starts_with("impersonate-"))
        {
            // Only the cloud knows what such a caller may see, and it is not what the caller itself may.
            target = Target::Other;
        }
        let (options, is_watch) = Options::read(uri.query().unwrap_or(""));
        let is_named = matches!(&target, Target::Resource(Path { name: Some(_), .. }));
        let verb = match *method {
            Method::GET if is_watch_path => Verb::Watch,
            Method::GET if is_named || !matches!(target, Target::Resource(_)) => Verb::Get,
            Method::GET if is_watch => Verb::Watch,
            Method::GET => Verb::List,
            _ => Verb::Write,
        };
        Self {
            method: method.clone(),
            verb,
            target,
            options,
            shape: Shape::preferred(headers, verb),
            is_upgrade: headers.contains_key(UPGRADE),
        }
    }

    /// Returns whether the request lasts as long as its caller wants: what kube-apiserver calls long running.
    pub(crate) fn lasts(&self) -> bool {
        let is_stream = |path: &Path| {
            let subresource = path.subresource.as_deref().unwrap_or("");
            let subresource = subresource.split('/').next().unwrap_or("");
            matches!(
                subresource,
                "attach" | "exec" | "log" | "portforward" | "proxy"
            )
        };
        self.verb == Verb::Watch || self.is_upgrade || self.path().is_some_and(is_stream)
    }

    /// Returns the path if the request is about a resource.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.target {
            Target::Resource(path) => Some(path),
            Target::Document | Target::Other => None,
        }
    }
}

impl Target {
    /// Reads a path; also returns whether it is a watch in the old style.
    fn read(path: &str) -> (Self, bool) {
        let Some(parts) = split(path) else {
            return (Self::Other, false);
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let is_word = |segment: &&str| {
            let mut bytes = segment.bytes();
            bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        };
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            ["api" | "apis" | "version" | "openapi", ..] => return (Self::Document, false),
            _ => return (Self::Other, false),
        };
        let (rest, is_watch_path) = match rest {
            ["watch", rest @ ..] => (rest, true),
            rest => (rest, false),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, inner @ ..]
                if !matches!(inner, [] | ["status" | "finalize", ..]) =>
            {
                (Some((*namespace).to_owned()), inner)
            }
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else {
            return (Self::Other, false);
        };
        // The hub makes paths of these itself; nothing else can be one of them.
        if ![group, version, *plural].iter().all(is_word)
            || !namespace.as_deref().iter().all(is_word)
        {
            return (Self::Other, false);
        }
        let resource = Resource::new(group, version, plural);
        let name = rest.first().map(|name| (*name).to_owned());
        let subresource = (rest.len() > 1).then(|| rest[1..].join("/"));
        (
            Self::Resource(Path {
                resource,
                namespace,
                name,
                subresource,
            }),
            is_watch_path,
        )
    }
}

/// Returns whether a path and its query can be sent on: a server that cannot decode them resets the stream,
/// or the connection of everybody. What has no path, as a tunnel or `*`, is not the API's.
pub(crate) fn is_decodable(uri: &Uri) -> bool {
    if !uri.path().starts_with('/') {
        return false;
    }
    let text = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .as_bytes();
    let is_hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_escaped = text
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte != b'%' || (is_hex(at + 1) && is_hex(at + 2)));
    is_escaped && text.starts_with(b"/") && text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// Splits a path and decodes its segments; `None` for what no resource's path is: empty segments, dots,
/// encoded slashes, percent signs, control characters, bytes that are no text.
fn split(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8().ok()?;
            let is_plain = !matches!(&*decoded, "" | "." | "..")
                && !decoded.contains(['/', '\\', '%'])
                && !decoded.contains(char::is_control);
            is_plain.then(|| decoded.into_owned())
        })
        .collect()
}

impl Shape {
    /// Returns the first shape of the `Accept` header that the hub can make of such an answer; `None` if there
    /// is none.
    fn preferred(headers: &HeaderMap, verb: Verb) -> Option<Self> {
        let mut is_empty = true;
        for value in headers.get_all(ACCEPT) {
            for clause in value
                .to_str()
                .unwrap_or("")
                .split(',')
                .map(str::trim)
                .filter(|clause| !clause.is_empty())
            {
                is_empty = false;
                if let Some(shape) = Self::of_clause(clause, verb) {
                    return Some(shape);
                }
            }
        }
        is_empty.then_some(Self::Object)
    }

    fn of_clause(clause: &str, verb: Verb) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (mut kind, mut group, mut version) = (None, None, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "as" => kind = Some(value.trim()),
                "g" => group = Some(value.trim()),
                "v" => version = Some(value.trim()),
                _ => {}
            }
        }
        match kind {
            None => Some(Self::Object),
            Some(_)
                if group.is_some_and(|group| group != "meta.k8s.io")
                    || version.is_some_and(|version| version != "v1") =>
            {
                None
            }
            Some("Table") => Some(Self::Table),
            Some("PartialObjectMetadata") if verb != Verb::List => Some(Self::Metadata),
            Some("PartialObjectMetadataList") if verb == Verb::List => Some(Self::Metadata),
            Some(_) => None,
        }
    }
}

impl Options {
    /// Reads a query; also returns whether it asks for a watch. Of a name that comes twice the first counts.
    fn read(query: &str) -> (Self, bool) {
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
                _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, uri: &str) -> ApiRequest {
        ApiRequest::read(&method, &uri.parse().unwrap(), &HeaderMap::new())
    }

    fn named(uri: &str) -> String {
        let request = read(Method::GET, uri);
        match request.target {
            Target::Document => "document".to_owned(),
            Target::Other => "other".to_owned(),
            Target::Resource(path) => format!(
                "{:?} {} {} {} {}",
                request.verb,
                path.resource,
                path.namespace.as_deref().unwrap_or("-"),
                path.name.as_deref().unwrap_or("-"),
                path.subresource.as_deref().unwrap_or("-")
            ),
        }
    }

    #[test]
    fn a_path_says_resource_namespace_name_and_subresource() {
        for (uri, expected) in [
            ("/api/v1/pods", "List pods - - -"),
            ("/api/v1/pods?watch=true", "Watch pods - - -"),
            ("/api/v1/pods?watch", "Watch pods - - -"),
            ("/api/v1/pods?watch=0", "List pods - - -"),
            ("/api/v1/namespaces", "List namespaces - - -"),
            ("/api/v1/namespaces/a", "Get namespaces - a -"),
            ("/api/v1/namespaces/a/status", "Get namespaces - a status"),
            ("/api/v1/namespaces/a/pods", "List pods a - -"),
            ("/api/v1/namespaces/a/pods/b", "Get pods a b -"),
            ("/api/v1/namespaces/a/pods/b/log", "Get pods a b log"),
            (
                "/api/v1/namespaces/a/services/b/proxy/x/y",
                "Get services a b proxy/x/y",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/",
                "List deployments.apps a - -",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "Get clusterroles.rbac.authorization.k8s.io - system:node -",
            ),
            ("/api/v1/watch/pods", "Watch pods - - -"),
            ("/api", "document"),
            ("/api/v1", "document"),
            ("/apis/apps", "document"),
            ("/apis/apps/v1", "document"),
            ("/openapi/v3/apis/apps/v1", "document"),
            ("/version", "document"),
            ("/healthz", "other"),
            ("/", "other"),
            ("/api/v1/../secrets", "other"),
            ("/api//v1/pods", "other"),
            ("/api/v1/namespaces/a%2Fb/pods", "other"),
            ("/api/v1/namespaces/%2e%2e/pods", "other"),
            ("/api/v1/pods%3Fwatch=1", "other"),
            ("/api/v1/namespaces/a%23/pods", "other"),
            ("/api/v1/namespaces/a%253Fb/pods", "other"),
            ("/api/v1/pods;x", "other"),
            ("/apis/a%20b/v1/pods", "other"),
            ("/api/v1/namespaces/a/pods/%252e", "other"),
            ("/api/v1/namespaces/a/pods/b%0d", "other"),
            ("/api/v1/namespaces/a/pods/%c2%85", "other"),
            ("//api/v1/pods", "other"),
            ("/api/v1/pods//", "other"),
            ("/api/v1/namespaces//pods", "other"),
            ("/API/v1/pods", "other"),
            ("/api/v1/pods?watch=1;x=2", "List pods - - -"),
            ("/api/v1/pods?watch=0&watch=1", "List pods - - -"),
            ("/api/v1/pods?%77atch=1", "Watch pods - - -"),
        ] {
            assert_eq!(named(uri), expected, "{uri}");
        }
        assert_eq!(read(Method::POST, "/api/v1/pods?watch=1").verb, Verb::Write);
    }

    #[test]
    fn what_cannot_be_decoded_is_told_before_it_is_sent_on() {
        for (uri, expected) in [
            ("/api/v1/pods?labelSelector=a%3Db", true),
            ("/api/v1/namespaces/a/pods/%zz", false),
            ("/api/v1/pods?x=%4", false),
            ("/api/v1/pods%", false),
            ("*", false),
            ("10.0.0.1:22", false),
            ("http://10.0.0.1/api", true),
            // A server takes this for no path at all.
            ("http://10.0.0.1?watch=1", false),
        ] {
            assert_eq!(is_decodable(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn a_query_is_read_as_the_server_reads_it() {
        let options = read(
            Method::GET,
            "/api/v1/pods?labelSelector=app%3Dx%2Ctier+in+(a)&fieldSelector=spec.nodeName%3Dn&resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5&continue=abc&timeoutSeconds=9&allowWatchBookmarks=true&sendInitialEvents=true&limit=9",
        )
        .options;
        assert_eq!(options.labels, "app=x,tier in (a)");
        assert_eq!(options.fields, "spec.nodeName=n");
        assert_eq!(options.revision, Revision::At(7));
        assert_eq!(options.revision_match, Some(RevisionMatch::NotOlderThan));
        assert_eq!((options.limit, options.timeout_seconds), (5, Some(9)));
        assert_eq!(options.continue_token.as_deref(), Some("abc"));
        assert!(options.allows_bookmarks);
        assert_eq!(options.initial_events, Some(true));
        assert_eq!(
            read(Method::GET, "/api/v1/pods?resourceVersion=x")
                .options
                .revision,
            Revision::Invalid("x".into())
        );
    }

    #[test]
    fn the_first_acceptable_shape_counts() {
        for (accept, expected) in [
            ("", Some(Shape::Object)),
            ("*/*", Some(Shape::Object)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Shape::Object),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Shape::Table),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Shape::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some(Shape::Metadata),
            ),
            ("application/json;stream=watch", Some(Shape::Object)),
            ("text/html", None),
            // The form of one object, asked of a list.
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                None,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(Shape::preferred(&headers, Verb::List), expected, "{accept}");
        }
    }
}
