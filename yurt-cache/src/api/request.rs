//! What a request asks for, read from its method, path, query and headers once.

mod options;

use http::header::{ACCEPT, UPGRADE};
use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

pub(crate) use self::options::{Options, Revision, RevisionMatch};
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
    lasts: bool,
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

impl ApiRequest {
    /// Returns whether a read takes what was there at any time.
    pub(crate) fn takes_any_version(&self) -> bool {
        let is_resumed =
            self.verb == Verb::Watch && matches!(self.options.revision, Revision::At(_));
        is_resumed || self.options.revision == Revision::Zero
    }

    /// Reads a request.
    pub(crate) fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let (target, is_watch_path) = Target::read(uri.path());
        let (options, is_watch) = Options::read(uri.query().unwrap_or(""));
        let is_named = matches!(&target, Target::Resource(Path { name: Some(_), .. }));
        let verb = match *method {
            Method::GET if is_watch_path => Verb::Watch,
            Method::GET if is_named || !matches!(target, Target::Resource(_)) => Verb::Get,
            Method::GET if is_watch => Verb::Watch,
            Method::GET => Verb::List,
            _ => Verb::Write,
        };
        let request = Self {
            method: method.clone(),
            verb,
            target,
            options,
            shape: Shape::preferred(headers, verb),
            is_upgrade: headers.contains_key(UPGRADE),
            lasts: false,
        };
        let lasts = verb == Verb::Watch || request.is_upgrade || request.is_stream();
        let request = Self { lasts, ..request };
        let mut names = headers.keys();
        if names.any(|name| name.as_str().starts_with("impersonate-")) {
            return request.impersonated();
        }
        request
    }

    /// Only the cloud knows what such a caller may see, and it is not what the caller itself may.
    fn impersonated(self) -> Self {
        let verb = match self.verb {
            Verb::Get | Verb::List | Verb::Watch => Verb::Get,
            Verb::Write => Verb::Write,
        };
        Self {
            target: Target::Other,
            verb,
            ..self
        }
    }

    /// Returns whether the request lasts as long as its caller wants: what kube-apiserver calls long running.
    pub(crate) fn lasts(&self) -> bool {
        self.lasts
    }

    fn is_stream(&self) -> bool {
        let subresource = self.path().and_then(|path| path.subresource.as_deref());
        let subresource = subresource.and_then(|text| text.split('/').next());
        matches!(
            subresource,
            Some("attach" | "exec" | "log" | "portforward" | "proxy")
        )
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

#[cfg(test)]
mod tests;
