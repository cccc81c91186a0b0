//! The questions that a client asks, and what is expected of a hub that is cut off.

use crate::world::COLLECTIONS;

/// What kubectl accepts for a table.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
/// What a metadata informer accepts for one object.
pub(crate) const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// What a metadata informer accepts for a list.
pub(crate) const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const JSON: &str = "application/json";

/// What a hub that is cut off says, against what the server said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offline {
    /// The same.
    Same,
    /// The same rows, with the columns that every kind has, and all of those of a custom kind.
    Table,
    /// The same, or an honest 503.
    SameOrUnavailable,
    /// A refusal with the server's code and reason, in other words; where the server fails with 500, 400.
    SameRefusal,
    /// 410 `Expired`: only the present is remembered.
    Expired,
    /// The same, or 406: only JSON is remembered.
    SameOrNotAcceptable,
    /// A refusal of any kind, with a Status.
    Refused,
}

/// A question. `{now}` is a revision that everybody knows, `{future}` one that nobody knows.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The Accept header.
    pub(crate) accept: &'static str,
    /// Path and query.
    pub(crate) path: String,
    /// What a hub says that is cut off.
    pub(crate) offline: Offline,
}

impl Row {
    fn new(path: impl Into<String>, offline: Offline) -> Self {
        Self::as_(JSON, path, offline)
    }

    fn as_(accept: &'static str, path: impl Into<String>, offline: Offline) -> Self {
        Self {
            accept,
            path: path.into(),
            offline,
        }
    }

    /// How the row is called in a report.
    pub(crate) fn name(&self) -> String {
        let form = match self.accept {
            JSON => "",
            TABLE => " as Table",
            METADATA | METADATA_LIST => " as metadata",
            other => other,
        };
        format!(
            "{}{}{form}",
            self.path,
            if form.starts_with(' ') || form.is_empty() {
                ""
            } else {
                " accepting "
            }
        )
    }
}

/// Every question.
pub(crate) fn all() -> Vec<Row> {
    [
        of_every_collection(),
        selected(),
        revisions(),
        forms(),
        wrong(),
        documents(),
    ]
    .concat()
}

fn of_every_collection() -> Vec<Row> {
    use Offline::{Same, Table};
    let rows = COLLECTIONS.iter().flat_map(|collection| {
        let (all, within, one) = (
            collection.all(),
            collection.within("world"),
            collection.one(),
        );
        let name = collection.object.1;
        let mut rows = vec![
            Row::new(&all, Same),
            Row::new(format!("{all}?resourceVersion=0"), Same),
            Row::new(format!("{within}?resourceVersion={{now}}"), Same),
            Row::new(
                format!("{within}?resourceVersion={{now}}&resourceVersionMatch=NotOlderThan"),
                Same,
            ),
            Row::new(&one, Same),
            Row::new(format!("{one}?resourceVersion=0"), Same),
            Row::new(format!("{one}?resourceVersion={{now}}"), Same),
            Row::new(format!("{within}/absent"), Same),
            Row::new(
                format!("{within}?fieldSelector=metadata.name%3D{name}"),
                Same,
            ),
            Row::new(
                format!("{within}?fieldSelector=metadata.name%3Dabsent&resourceVersion=0"),
                Same,
            ),
            Row::as_(TABLE, &all, Table),
            Row::as_(TABLE, &one, Table),
            Row::as_(METADATA_LIST, &all, Same),
            Row::as_(METADATA_LIST, format!("{all}?resourceVersion=0"), Same),
            Row::as_(METADATA, &one, Same),
        ];
        if !collection.object.0.is_empty() {
            rows.extend([
                Row::new(&within, Same),
                Row::new(format!("{within}?resourceVersion=0"), Same),
                Row::new(collection.within("empty"), Same),
                Row::new(collection.within("nowhere"), Same),
                Row::new(
                    format!("{all}?fieldSelector=metadata.namespace%3Dworld"),
                    Same,
                ),
            ]);
        }
        rows
    });
    rows.collect()
}

fn selected() -> Vec<Row> {
    let labels = [
        "tier=web",
        "tier==web",
        "tier!=web",
        "tier",
        "!tier",
        "tier in (web,db)",
        "tier notin (web)",
        "env in (prod),tier",
        "tier=",
        "tier in (web,)",
        "example.com/weight>0",
        "example.com/weight<1",
        "env=prod,tier!=db",
        " tier = web ",
        "example.com/weight notin (1,2)",
        "tier,env notin (test)",
        "absent=x",
        "size=big",
    ];
    let fields = [
        ("pods", "spec.nodeName=edge-1"),
        ("pods", "spec.nodeName="),
        ("pods", "spec.nodeName!=edge-1"),
        ("pods", "status.phase=Running"),
        ("pods", "status.phase!=Running,spec.nodeName=edge-1"),
        ("pods", "spec.restartPolicy=Never"),
        ("pods", "spec.schedulerName=default-scheduler"),
        ("pods", "spec.serviceAccountName="),
        ("pods", "spec.hostNetwork=false"),
        ("pods", "status.podIP=10.0.0.9"),
        ("pods", "status.nominatedNodeName="),
        ("secrets", "type=Opaque"),
        ("secrets", "type!=Opaque"),
        ("nodes", "spec.unschedulable=true"),
        ("nodes", "spec.unschedulable=false"),
        ("services", "spec.clusterIP=None"),
        ("services", "spec.type=ExternalName"),
        ("events", "involvedObject.name=running"),
        ("events", "involvedObject.kind=Pod,reason=Failed"),
        ("events", "type=Warning"),
        ("events", "source=kubelet"),
        ("events", "involvedObject.namespace=other"),
        ("events", "reportingComponent=kubelet"),
        ("events", "involvedObject.apiVersion=v1"),
        ("events", "involvedObject.uid="),
        ("namespaces", "status.phase=Active"),
        ("configmaps", "metadata.name!=plain"),
        (
            "configmaps",
            "metadata.name=web-prod,metadata.namespace=other",
        ),
        ("configmaps", ""),
        // Not supported: the server says so.
        ("configmaps", "data.k=v"),
        ("pods", "spec.nope=1"),
        ("nodes", "spec.podCIDR=x"),
        ("services", "spec.sessionAffinity=None"),
        // Not well formed.
        ("configmaps", "metadata.name"),
        ("configmaps", "metadata.name>a"),
    ];
    let wrong_labels = [
        "a=b=c",
        "tier in web",
        "tier in (",
        "-x=1",
        "a=b,,c",
        "tier>web",
        "a/b/c=d",
        "tier=web!",
    ];
    let mut rows = Vec::new();
    for text in labels.iter().chain(&wrong_labels) {
        let text = escaped(text);
        rows.push(Row::new(
            format!("/api/v1/configmaps?labelSelector={text}"),
            Offline::Same,
        ));
        rows.push(Row::new(
            format!("/api/v1/namespaces/world/configmaps?labelSelector={text}&resourceVersion=0"),
            Offline::Same,
        ));
    }
    for (plural, text) in fields {
        let text = escaped(text);
        rows.push(Row::new(
            format!("/api/v1/{plural}?fieldSelector={text}"),
            Offline::Same,
        ));
        rows.push(Row::new(
            format!("/api/v1/{plural}?fieldSelector={text}&resourceVersion=0"),
            Offline::Same,
        ));
    }
    for text in [
        "spec.colour=green",
        "spec.colour!=green",
        "spec.colour=grün",
        "spec.height=12",
        "metadata.name=pear",
    ] {
        let text = escaped(text);
        rows.push(Row::new(
            format!("/apis/desert.example.com/v1/cacti?fieldSelector={text}"),
            Offline::Same,
        ));
        rows.push(Row::new(format!("/apis/desert.example.com/v1/cacti?fieldSelector={text}&resourceVersion=0&labelSelector=colour"), Offline::Same));
    }
    rows.push(Row::new(
        "/api/v1/configmaps?fieldSelector=metadata.namespace%3Dworld&labelSelector=tier",
        Offline::Same,
    ));
    rows.push(Row::as_(
        METADATA_LIST,
        "/api/v1/configmaps?labelSelector=tier%3Dweb&resourceVersion=0",
        Offline::Same,
    ));
    rows.push(Row::as_(
        TABLE,
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1",
        Offline::Table,
    ));
    rows
}

fn revisions() -> Vec<Row> {
    use Offline::{Expired, Same, SameRefusal};
    let list = "/api/v1/namespaces/world/configmaps";
    let one = "/api/v1/namespaces/world/configmaps/plain";
    vec![
        Row::new(format!("{list}?resourceVersion={{future}}"), Same),
        Row::new(format!("{one}?resourceVersion={{future}}"), Same),
        Row::new(
            format!("{list}?resourceVersion={{future}}&resourceVersionMatch=NotOlderThan"),
            Same,
        ),
        Row::new(
            format!("{list}?resourceVersion=1&resourceVersionMatch=Exact"),
            Expired,
        ),
        Row::new(format!("{list}?resourceVersion=1"), Same),
        Row::new(
            format!("{list}?resourceVersion=1&resourceVersionMatch=NotOlderThan"),
            Same,
        ),
        Row::new(
            format!("{list}?resourceVersion=0&resourceVersionMatch=NotOlderThan"),
            Same,
        ),
        Row::new(format!("{list}?resourceVersion=0&limit=1"), Same),
        Row::new(format!("{list}?resourceVersion="), Same),
        // Wrong combinations: the server's own refusals.
        Row::new(
            format!("{list}?resourceVersion=0&resourceVersionMatch=Exact"),
            Same,
        ),
        Row::new(format!("{list}?resourceVersionMatch=Exact"), Same),
        Row::new(format!("{list}?resourceVersionMatch=NotOlderThan"), Same),
        Row::new(
            format!("{list}?resourceVersion=1&resourceVersionMatch=Sometimes"),
            SameRefusal,
        ),
        Row::new(format!("{list}?resourceVersion=one"), SameRefusal),
        Row::new(format!("{list}?resourceVersion=-1"), SameRefusal),
        Row::new(format!("{one}?resourceVersion=one"), SameRefusal),
        Row::new(format!("{list}?continue=nonsense"), Offline::Refused),
        Row::new(
            format!("{list}?continue=nonsense&resourceVersion=1"),
            Offline::Refused,
        ),
        Row::new(format!("{list}?limit=many"), SameRefusal),
        Row::new(format!("{list}?sendInitialEvents=true"), Same),
        Row::new(
            format!("{list}?watch=1&sendInitialEvents=true"),
            SameRefusal,
        ),
        Row::new(
            format!("{list}?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact"),
            SameRefusal,
        ),
        Row::new(
            format!("{list}?watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan"),
            Same,
        ),
        Row::new(format!("{list}?watch=1&resourceVersion=one"), SameRefusal),
        Row::new(
            format!("{list}?watch=maybe&timeoutSeconds=1"),
            Offline::SameOrUnavailable,
        ),
    ]
}

fn forms() -> Vec<Row> {
    use Offline::{Same, SameOrNotAcceptable, SameOrUnavailable, Table};
    let cacti = "/apis/desert.example.com/v1/namespaces/world/cacti";
    vec![
        Row::new(format!("{cacti}/odd"), Same),
        Row::new(format!("{cacti}?labelSelector=big"), Same),
        Row::new("/api/v1/namespaces/other/configmaps/big", Same),
        Row::new(
            "/api/v1/namespaces/world/configmaps/web-prod?pretty=true",
            SameOrUnavailable,
        ),
        Row::as_("*/*", "/api/v1/namespaces/world/configmaps/web-prod", Same),
        Row::as_(
            "application/vnd.kubernetes.protobuf",
            "/api/v1/namespaces/world/configmaps/web-prod",
            SameOrNotAcceptable,
        ),
        Row::as_(
            "application/vnd.kubernetes.protobuf",
            "/api/v1/namespaces/world/configmaps",
            SameOrNotAcceptable,
        ),
        Row::as_(
            "application/vnd.kubernetes.protobuf",
            format!("{cacti}/odd"),
            SameOrNotAcceptable,
        ),
        Row::as_(
            "application/yaml",
            "/api/v1/namespaces/world/configmaps/web-prod",
            SameOrNotAcceptable,
        ),
        Row::as_(
            "text/html",
            "/api/v1/namespaces/world/configmaps/web-prod",
            SameOrNotAcceptable,
        ),
        Row::as_(
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            format!("{cacti}?includeObject=None"),
            Table,
        ),
        Row::as_(
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            format!("{cacti}?includeObject=Object"),
            Table,
        ),
        Row::as_(
            "application/json;as=Nothing;v=v1;g=meta.k8s.io",
            "/api/v1/namespaces/world/configmaps/web-prod",
            SameOrNotAcceptable,
        ),
        Row::new(
            "/api/v1/namespaces/world/pods/running/status",
            SameOrUnavailable,
        ),
        Row::new(
            "/apis/apps/v1/namespaces/world/deployments/web/status",
            SameOrUnavailable,
        ),
        Row::new(
            "/apis/apps/v1/namespaces/world/deployments/web/scale",
            SameOrUnavailable,
        ),
        Row::new(
            "/apis/desert.example.com/v1/namespaces/world/cacti/odd/status",
            SameOrUnavailable,
        ),
        Row::new(
            "/apis/desert.example.com/v1beta1/namespaces/world/cacti/odd",
            SameOrUnavailable,
        ),
        Row::new("/apis/desert.example.com/v1beta1/cacti", SameOrUnavailable),
        Row::new(
            "/apis/events.k8s.io/v1/namespaces/world/events",
            SameOrUnavailable,
        ),
        Row::new(
            "/api/v1/watch/namespaces/world/configmaps?timeoutSeconds=1&resourceVersion={now}",
            SameOrUnavailable,
        ),
        Row::new(
            "/api/v1/namespaces/world/pods/running/log",
            SameOrUnavailable,
        ),
    ]
}

fn wrong() -> Vec<Row> {
    use Offline::{Refused, SameOrUnavailable, SameRefusal};
    [
        "/apis/nonsense.example.com/v1/things",
        "/apis/nonsense.example.com/v1",
        "/apis/nonsense.example.com",
        "/apis/apps/v9/deployments",
        "/api/v1/nonsense",
        "/api/v1/namespaces/world/nonsense",
        "/api/v2",
        "/api/v1/namespaces/world/configmaps/web-prod/nonsense",
        "/api/v1/namespaces/world/nodes",
        "/nonsense",
        "/",
        "/api/v1/namespaces/world/configmaps/",
        "/api/v1/namespaces//configmaps",
        "/api/v1//configmaps",
        "//api/v1/configmaps",
        "/api/v1/namespaces/world/../other/configmaps/lonely",
        "/api/v1/namespaces/world/configmaps/../../../../api/v1/namespaces/other/secrets/theirs",
        "/api/v1/namespaces/world/configmaps/%2e%2e",
        "/api/v1/namespaces/world/configmaps/a%2fb",
        "/api/v1/namespaces/world%2fconfigmaps/plain",
        "/api/v1/namespaces/world/configmaps/%00",
        "/api/v1/namespaces/world/configmaps/pl%61in",
        "/api/v1/n%61mespaces/world/configmaps/plain",
        "/api/v1/namespaces/world/configmaps/web-prod/../plain",
        "/api/v1/./configmaps",
        "/api/v1/namespaces/WORLD/configmaps",
        "/api/v1/namespaces/world/configmaps/Plain",
        "/api/v1/configmaps/plain",
        "/api/v1/proxy/nodes/edge-1",
        "/api/v1/nodes/edge-1/proxy/healthz",
    ]
    .into_iter()
    .map(|path| match path {
        "/api/v1/configmaps/plain" => Row::new(path, SameRefusal),
        // A hub that was started again knows neither the kind nor who may list it.
        path if path.ends_with("v1/things") => Row::new(path, Refused),
        path if path.contains("..") || path.contains("//") => Row::new(path, Refused),
        path => Row::new(path, SameOrUnavailable),
    })
    .collect()
}

fn documents() -> Vec<Row> {
    use Offline::{Same, SameOrUnavailable};
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let mut rows: Vec<Row> = [
        "/api",
        "/apis",
        "/version",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/apis/desert.example.com/v1",
        "/openapi/v3",
        "/openapi/v3/apis/desert.example.com/v1",
        "/openapi/v2",
    ]
    .into_iter()
    .map(|path| Row::new(path, Same))
    .collect();
    rows.push(Row::as_(aggregated, "/api", Same));
    rows.push(Row::as_(aggregated, "/apis", Same));
    rows.push(Row::as_(
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "/openapi/v2",
        Same,
    ));
    for path in [
        "/healthz",
        "/livez",
        "/readyz",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
    ] {
        rows.push(Row::new(path, SameOrUnavailable));
    }
    rows
}

/// Percent-encodes what a query cannot hold.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
