//! A namespace of its own for each case, and the few objects that cases are made of.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, Error, Event, Watch};

/// What a case ends with: the connection's errors; assertions panic.
pub type Outcome = Result<(), Error>;

/// No event of a test takes longer.
pub const SOON: Duration = Duration::from_secs(10);
/// A watch that says nothing for so long has nothing to say.
pub const MOMENT: Duration = Duration::from_millis(300);

/// A namespace that nobody else uses.
#[derive(Debug)]
pub struct Place<'a> {
    /// The client of the case.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: String,
}

impl<'a> Place<'a> {
    /// Makes the namespace.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn new(client: &'a Client) -> Result<Self, Error> {
        let body = json!({"metadata": {"generateName": "semantics-"}});
        let created = client.post("/api/v1/namespaces", &body).await?.expect(201);
        let namespace = created["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Self { client, namespace })
    }

    /// Returns the path of a core resource in the namespace.
    pub fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Returns the path of a resource of a group (`apps/v1`) in the namespace.
    pub fn group(&self, version: &str, rest: &str) -> String {
        format!("/apis/{version}/namespaces/{}/{rest}", self.namespace)
    }

    /// Creates a ConfigMap with labels (`a=1,b=2`, or none).
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn config_map(&self, name: &str, labels: &str) -> Result<Value, Error> {
        let body = json!({"metadata": {"name": name, "labels": pairs(labels)}, "data": {"k": "v"}});
        Ok(self
            .client
            .post(&self.core("configmaps"), &body)
            .await?
            .expect(201))
    }

    /// Opens a watch and checks that it is open.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn watch(&self, path: &str) -> Result<Watch, Error> {
        let watch = self.client.watch(path).await?;
        assert_eq!(watch.code, 200, "{path}");
        Ok(watch)
    }
}

/// Waits for an event, and checks that it is one.
///
/// # Errors
///
/// When none comes in time.
pub async fn next(watch: &mut Watch) -> Result<Event, Error> {
    let event = watch.next(SOON).await?;
    event.ok_or_else(|| Error::Silence("a watch that ended".into()))
}

/// Waits for an event and checks what it says about whom.
///
/// # Errors
///
/// When none comes in time.
pub async fn expect(watch: &mut Watch, kind: &str, name: &str) -> Result<Value, Error> {
    let event = next(watch).await?;
    let found = event.object["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    assert_eq!(
        (event.kind.as_str(), found),
        (kind, name),
        "{}",
        event.object
    );
    Ok(event.object)
}

/// Returns the names of a list, in its order.
pub fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

/// Returns an object's or a list's revision, as a number.
///
/// # Panics
///
/// When there is none.
#[track_caller]
pub fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    text.parse()
        .unwrap_or_else(|_| panic!("no resourceVersion in {object}"))
}

/// Reads `a=1,b=2` as a map.
pub fn pairs(text: &str) -> Value {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let map = pairs.map(|(key, value)| (key.to_owned(), Value::from(value)));
    Value::Object(map.collect())
}
