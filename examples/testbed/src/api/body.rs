//! Request bodies: bounded, and JSON.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::status::ApiError;

/// The server refuses larger bodies.
const MAX_BODY: usize = 3 * 1024 * 1024;

pub(crate) async fn body_bytes(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let limited = Limited::new(request.into_body(), MAX_BODY);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ApiError::too_large_body()
        } else {
            ApiError::bad_request("unable to read the request body")
        }
    })?;
    Ok(collected.to_bytes())
}

pub(crate) async fn json_body(request: Request<Incoming>) -> Result<Value, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if !matches!(media, "" | "application/json") {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    let bytes = body_bytes(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
        ))
    })
}

/// Options of a deletion: in the body, or none.
pub(crate) async fn delete_options(request: Request<Incoming>) -> Result<Value, ApiError> {
    let bytes = body_bytes(request).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::internal(&format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })
}
