//! Objects in other clothes: their metadata alone, and rows of a `Table`, piece by piece so
//! that a list can be streamed. Commas between pieces and the tail `]}` are the caller's.

use bytes::{BufMut, Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::json::write_string;
use super::object::{ObjectMeta, field};
use super::path::{JsonPath, scalar};

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    name: String,
    /// As OpenAPI has it: `string`, `integer`, `number`, `boolean`, `date`.
    kind: String,
    format: String,
    description: String,
    /// 0 is always shown, more only on a wide terminal.
    priority: i32,
    cell: Cell,
}

/// Where a column's cells come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Name,
    Age,
    Path(JsonPath),
    /// The path is beyond us.
    Unknown,
}

/// What a custom resource says of one of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PrinterColumn {
    /// The heading.
    pub(crate) name: String,
    /// The OpenAPI type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The OpenAPI format.
    pub(crate) format: String,
    /// For people.
    pub(crate) description: String,
    /// 0 is always shown.
    pub(crate) priority: i32,
    /// Where the value is.
    pub(crate) json_path: String,
}

/// What comes with each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// The object's metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl IncludeObject {
    /// Reads the `includeObject` parameter; absent is empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            "None" => Some(Self::None),
            _ => None,
        }
    }
}

impl Column {
    /// The columns that every resource has.
    pub(crate) fn defaults() -> Vec<Self> {
        vec![Self::name(), Self::age()]
    }

    /// The columns of a custom resource: its name, then its own, or else its age.
    pub(crate) fn custom(columns: Vec<PrinterColumn>) -> Vec<Self> {
        if columns.is_empty() {
            return Self::defaults();
        }
        std::iter::once(Self::name())
            .chain(columns.into_iter().map(Self::from_printer))
            .collect()
    }

    fn name() -> Self {
        Self {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names".into(),
            priority: 0,
            cell: Cell::Name,
        }
    }

    fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata".into(),
            priority: 0,
            cell: Cell::Age,
        }
    }

    fn from_printer(column: PrinterColumn) -> Self {
        let PrinterColumn {
            name,
            kind,
            format,
            description,
            priority,
            json_path,
        } = column;
        let description = if description.is_empty() {
            format!("Custom resource definition column (in JSONPath format): {json_path}")
        } else {
            description
        };
        // A path beyond us leaves its cells empty; the other columns stay where they are.
        let cell = JsonPath::parse(&json_path).map_or(Cell::Unknown, Cell::Path);
        Self {
            name,
            kind,
            format,
            description,
            priority,
            cell,
        }
    }
}

// === Table ===

/// Opens a table up to its first row; `metadata` is the list's, as JSON. Without columns it refers to those sent before, as
/// every event of a watch but the first does.
pub(crate) fn table_head(columns: &[Column], metadata: &str) -> Bytes {
    let mut head = BytesMut::with_capacity(1536);
    head.put_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
    head.put_slice(metadata.as_bytes());
    head.put_slice(br#","columnDefinitions":"#);
    if columns.is_empty() {
        head.put_slice(b"null");
    }
    for (at, column) in columns.iter().enumerate() {
        head.put_u8(if at == 0 { b'[' } else { b',' });
        let texts = [
            ("{\"name\":", &column.name),
            (",\"type\":", &column.kind),
            (",\"format\":", &column.format),
            (",\"description\":", &column.description),
        ];
        for (key, value) in texts {
            head.put_slice(key.as_bytes());
            write_string(value, &mut head);
        }
        head.put_slice(format!(",\"priority\":{}}}", column.priority).as_bytes());
    }
    if !columns.is_empty() {
        head.put_u8(b']');
    }
    head.put_slice(b",\"rows\":[");
    head.freeze()
}

/// One row. An object that is included must carry its type already.
pub(crate) fn table_row(
    columns: &[Column],
    object: &[u8],
    meta: &ObjectMeta,
    include: IncludeObject,
    now: Timestamp,
) -> Bytes {
    let mut row = BytesMut::with_capacity(match include {
        IncludeObject::None => 256,
        IncludeObject::Metadata | IncludeObject::Object => object.len() + 256,
    });
    row.put_slice(b"{\"cells\":[");
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            row.put_u8(b',');
        }
        match &column.cell {
            Cell::Name => write_string(&meta.name, &mut row),
            Cell::Age => write_string(
                &age(meta.creation_timestamp.as_deref().unwrap_or(""), now),
                &mut row,
            ),
            Cell::Path(path) => match path.find(object) {
                Some(value) => write_cell(&column.kind, value, now, &mut row),
                None => row.put_slice(b"null"),
            },
            Cell::Unknown => row.put_slice(b"null"),
        }
    }
    row.put_slice(b"],\"object\":");
    match include {
        IncludeObject::Metadata => write_partial(object, &mut row),
        IncludeObject::Object => row.put_slice(object),
        IncludeObject::None => row.put_slice(b"null"),
    }
    row.put_u8(b'}');
    row.freeze()
}

/// Writes a cell as the server converts values to a column's type.
fn write_cell(kind: &str, value: &RawValue, now: Timestamp, into: &mut BytesMut) {
    let raw = value.get();
    let first = raw.as_bytes().first().copied().unwrap_or(b'n');
    let is_number = first == b'-' || first.is_ascii_digit();
    match kind {
        // Everything can be a string; Go's template prints null so.
        "string" if first == b'n' => write_string("<no value>", into),
        "string" => write_string(&scalar(value).unwrap_or_else(|| raw.to_owned()), into),
        "date" if first == b'"' => {
            write_string(&age(&scalar(value).unwrap_or_default(), now), into)
        }
        "integer" if is_number => match integer(raw) {
            Some(number) => into.put_slice(number.to_string().as_bytes()),
            None => into.put_slice(b"null"),
        },
        "number" if is_number => into.put_slice(raw.as_bytes()),
        "boolean" if matches!(first, b't' | b'f') => into.put_slice(raw.as_bytes()),
        _ => into.put_slice(b"null"),
    }
}

/// A number without its fraction; none beyond 64 bits.
fn integer(raw: &str) -> Option<i64> {
    raw.parse().ok().or_else(|| {
        let number: f64 = raw.parse().ok()?;
        // Beyond this the digits of a float are too many to be an integer of ours.
        (number.abs() < 1e19).then(|| format!("{:.0}", number.trunc()).parse().ok())?
    })
}

/// How long ago a point in time was, in the words of the server.
fn age(timestamp: &str, now: Timestamp) -> String {
    if matches!(timestamp, "" | "null") {
        return "<unknown>".into();
    }
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then)),
        Err(_) => "<invalid>".into(),
    }
}

/// `HumanDuration` of k8s.io/apimachinery: two units while the smaller one still says something.
pub(crate) fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match () {
        // Clocks of two machines may differ by a little.
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 2 * 365 => format!("{days}d"),
        () if days < 8 * 365 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

// === PartialObjectMetadata ===

/// An object's metadata alone, byte for byte, as a `PartialObjectMetadata`.
pub(crate) fn partial_object(object: &[u8]) -> Bytes {
    let mut partial = BytesMut::with_capacity(object.len().min(4096));
    write_partial(object, &mut partial);
    partial.freeze()
}

fn write_partial(object: &[u8], into: &mut BytesMut) {
    let metadata = std::str::from_utf8(object)
        .ok()
        .and_then(|object| field(object, "metadata"));
    into.put_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    into.put_slice(metadata.map_or("{}", RawValue::get).as_bytes());
    into.put_u8(b'}');
}

#[cfg(test)]
mod tests;
