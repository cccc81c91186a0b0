//! Reading objects back.

use super::{
    client::Client,
    place::{Outcome, Place},
};

/// What was posted comes back, with what the server added.
pub async fn an_object_is_read_as_it_was_written(client: &Client) -> Outcome {
    let place = Place::new(client).await?;
    let created = place.config_map("a", "x=1").await?;
    let read = client.get(&place.core("configmaps/a")).await?.expect(200);
    assert_eq!(read, created);
    assert_eq!(read["kind"], "ConfigMap");
    assert_eq!(read["apiVersion"], "v1");
    assert_eq!(read["data"]["k"], "v");
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(read["metadata"][field].is_string(), "{field}: {read}");
    }
    Ok(())
}
