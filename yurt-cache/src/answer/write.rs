//! Writes objects in the shape that the caller prefers.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::api::request::Shape;
use crate::api::well_known::may_be_custom;
use crate::codec::{self, Column, EventType, IncludeObject, ObjectMeta, TypeMeta, with_type_meta};
use crate::filter::chain::{FilterChain, FilterChainError, Filtered};
use crate::mirror::kind::Kind;

/// Writes objects of one kind in one shape.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    shape: Shape,
    pub(crate) form: Arc<TypeMeta>,
    columns: Arc<Vec<Column>>,
    include: IncludeObject,
    now: jiff::Timestamp,
    chain: Option<FilterChain>,
    /// Its resource has a definition, and no type of the server's own.
    is_custom: bool,
}

/// Returns the columns of a kind's tables.
fn columns(kind: &Kind) -> Vec<Column> {
    let custom = kind.custom();
    match custom.columns.is_empty() {
        true => Column::defaults(),
        false => custom.columns.clone(),
    }
}

impl Writer {
    pub(crate) fn new(
        kind: &Kind,
        form: Arc<TypeMeta>,
        shape: Shape,
        include: Option<&str>,
        now: jiff::Timestamp,
    ) -> Self {
        let columns = match shape {
            Shape::Table => columns(kind),
            Shape::Object | Shape::Metadata => Vec::new(),
        };
        Self {
            shape,
            form,
            columns: Arc::new(columns),
            include: include.and_then(IncludeObject::parse).unwrap_or_default(),
            now,
            chain: None,
            is_custom: may_be_custom(&kind.resource),
        }
    }

    /// Returns a writer for who sees objects through filters.
    pub(crate) fn through(mut self, chain: Option<FilterChain>) -> Self {
        self.chain = chain;
        self
    }

    /// Returns the filters that objects have to pass before they are written.
    pub(crate) fn chain(&self) -> Option<&FilterChain> {
        self.chain.as_ref()
    }

    /// Lets the filters know what is known now.
    pub(crate) fn renew(&mut self) {
        if let Some(chain) = &mut self.chain {
            chain.renew();
        }
    }

    /// Returns an object of a list or a watch as the caller may see it.
    pub(crate) fn apply(&self, object: &Bytes) -> Result<Filtered, FilterChainError> {
        match &self.chain {
            None => Ok(Filtered::Shown(object.clone())),
            Some(chain) => chain.apply(object),
        }
    }

    /// Writes what comes before the items of a list.
    pub(crate) fn head(&self, revision: u64, paging: Option<(&str, Option<usize>)>) -> Bytes {
        let mut meta = format!("{{\"resourceVersion\":\"{revision}\"");
        if self.is_custom && self.shape == Shape::Object && paging.is_none() {
            // As the server writes lists of custom resources: they have no types of their own.
            meta.push_str(",\"continue\":\"\"");
        }
        if let Some((token, remaining)) = paging {
            meta.push_str(&format!(",\"continue\":\"{token}\""));
            if let Some(remaining) = remaining {
                meta.push_str(&format!(",\"remainingItemCount\":{remaining}"));
            }
        }
        meta.push('}');
        match self.shape {
            Shape::Table => codec::table_head(&self.columns, &meta),
            Shape::Metadata => head("PartialObjectMetadataList", "meta.k8s.io/v1", &meta),
            Shape::Object => head(&self.form.list_kind, &self.form.api_version, &meta),
        }
    }

    /// Writes one item of a list; `false` if its bytes cannot be shaped.
    pub(crate) fn item(&self, body: &Bytes, into: &mut BytesMut) -> bool {
        match self.shape {
            Shape::Object => match codec::strip_type(body, &self.form.api_version, &self.form.kind)
            {
                // It was remembered by itself before it was listed.
                Some(rest) => {
                    into.put_u8(b'{');
                    into.put_slice(rest);
                }
                None => into.put_slice(body),
            },
            Shape::Metadata => return put(into, &codec::partial_object(body)),
            Shape::Table => return self.row(body).is_some_and(|bytes| put(into, &bytes)),
        }
        true
    }

    /// Writes what comes after the items of a list.
    pub(crate) fn tail() -> &'static [u8] {
        b"]}\n"
    }

    /// Returns one object by itself, as a GET has it.
    pub(crate) fn single(&self, body: &Bytes) -> Option<Bytes> {
        match self.shape {
            Shape::Object => Some(with_type_meta(body, &self.form)),
            Shape::Metadata => Some(codec::partial_object(body)),
            Shape::Table => {
                let meta = ObjectMeta::parse(body).ok()?;
                let mut bytes = BytesMut::new();
                bytes.put_slice(&self.head(meta.resource_version, None));
                bytes.put_slice(&self.row(body)?);
                bytes.put_slice(Self::tail());
                Some(bytes.freeze())
            }
        }
    }

    /// Writes one event of a watch; `object` is as a GET has it.
    pub(crate) fn event(&self, event_type: EventType, object: &Bytes, into: &mut BytesMut) {
        match self.shape {
            Shape::Object => codec::frame(event_type, object, into),
            Shape::Metadata | Shape::Table => {
                if let Some(bytes) = self.single(object) {
                    codec::frame(event_type, bytes.trim_ascii_end(), into);
                }
            }
        }
    }

    /// Writes a bookmark.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial_events: bool, into: &mut BytesMut) {
        let (api_version, kind) = match self.shape {
            Shape::Object => (self.form.api_version.as_str(), self.form.kind.as_str()),
            Shape::Metadata => ("meta.k8s.io/v1", "PartialObjectMetadata"),
            Shape::Table => return,
        };
        let object = codec::bookmark(api_version, kind, revision, ends_initial_events);
        codec::frame(EventType::Bookmark, &object, into);
    }

    /// Returns whether events can be sent as the mirror has them.
    pub(crate) fn is_plain(&self) -> bool {
        self.shape == Shape::Object && self.chain.is_none()
    }

    fn row(&self, body: &Bytes) -> Option<Bytes> {
        let meta = ObjectMeta::parse(body).ok()?;
        let object = with_type_meta(body, &self.form);
        Some(codec::table_row(
            &self.columns,
            &object,
            &meta,
            self.include,
            self.now,
        ))
    }
}

fn head(kind: &str, api_version: &str, meta: &str) -> Bytes {
    format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":["
    )
    .into()
}

fn put(into: &mut BytesMut, bytes: &[u8]) -> bool {
    into.put_slice(bytes);
    true
}
