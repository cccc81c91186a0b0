//! A client on the node: it reads through the hub and follows a watch, as any Kubernetes client would.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use testbed::client::{Answer, Client, Error, Event, Watch};
use testbed::endpoint::Endpoint;

use crate::cloud::text;

/// A client with one connection to the hub.
#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
}

/// A list: what it was as bytes, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) bytes: bytes::Bytes,
    pub(crate) revision: String,
    /// Name to revision.
    pub(crate) items: BTreeMap<String, String>,
    /// What the hub warns of, such as the answer's age.
    pub(crate) warning: String,
}

/// A watch of stations, and how far it has come.
#[derive(Debug)]
pub(crate) struct Follower {
    watch: Watch,
    pub(crate) revision: String,
}

/// An event about one of our objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) revision: String,
}

/// What an answer says that is no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// There is no answer.
    #[error("ask the hub")]
    Ask(#[from] Error),
    /// It is a refusal.
    #[error("the hub says {code} {message}")]
    Refused {
        /// Its code.
        code: u16,
        /// Its message.
        message: String,
    },
    /// The watch ended.
    #[error("the watch ended")]
    Ended,
}

impl Reader {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        Client::new(endpoint).map(|client| Self { client })
    }

    /// Gets what must be there.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, ReadError> {
        let answer = self.client.get(path).await?;
        successful(answer)
    }

    /// Gets what must be there, as a table for people.
    pub(crate) async fn table(&self, path: &str) -> Result<Value, ReadError> {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let answer = self.client.get_as(path, accept).await?;
        successful(answer).map(|answer| answer.json())
    }

    /// Lists what must be there.
    pub(crate) async fn list(&self, path: &str) -> Result<List, ReadError> {
        self.get(path).await.map(List::from)
    }

    /// Posts an object and returns whatever is said.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Answer, ReadError> {
        Ok(self.client.post(path, object).await?)
    }

    /// Opens a watch after a revision.
    pub(crate) async fn follow(&self, path: &str, revision: &str) -> Result<Follower, ReadError> {
        let path = format!("{path}?watch=true&resourceVersion={revision}");
        let watch = self.client.watch(&path).await?;
        if watch.code != 200 {
            return Err(ReadError::Refused {
                code: watch.code,
                message: String::new(),
            });
        }
        Ok(Follower {
            watch,
            revision: revision.to_owned(),
        })
    }
}

impl Follower {
    /// Waits for the next event about an object of ours; a real cluster puts its own beside them.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Seen, ReadError> {
        loop {
            let event = self.watch.next(within).await?.ok_or(ReadError::Ended)?;
            let seen = Seen::from(&event);
            if seen.kind == "ERROR" {
                return Err(ReadError::Refused {
                    code: 410,
                    message: text(&event.object["message"]),
                });
            }
            self.revision.clone_from(&seen.revision);
            if seen.kind != "BOOKMARK" && seen.name.starts_with("station-") {
                return Ok(seen);
            }
        }
    }

    /// Whether it is open and has nothing to say.
    pub(crate) async fn is_open(&mut self) -> bool {
        let moment = Duration::from_millis(20);
        matches!(self.watch.is_silent(moment).await, Ok(true))
    }
}

impl From<Answer> for List {
    fn from(answer: Answer) -> Self {
        let json = answer.json();
        let items = json["items"].as_array().into_iter().flatten();
        let entry = |item: &Value| {
            let metadata = &item["metadata"];
            (text(&metadata["name"]), text(&metadata["resourceVersion"]))
        };
        Self {
            revision: text(&json["metadata"]["resourceVersion"]),
            // Every namespace of a cluster has one that nobody here wrote, sooner or later.
            items: items
                .map(entry)
                .filter(|(name, _)| name != "kube-root-ca.crt")
                .collect(),
            warning: answer.header("warning").to_owned(),
            bytes: answer.body,
        }
    }
}

impl From<&Event> for Seen {
    fn from(event: &Event) -> Self {
        let metadata = &event.object["metadata"];
        Self {
            kind: event.kind.clone(),
            name: text(&metadata["name"]),
            revision: text(&metadata["resourceVersion"]),
        }
    }
}

fn successful(answer: Answer) -> Result<Answer, ReadError> {
    if answer.code == 200 {
        return Ok(answer);
    }
    Err(ReadError::Refused {
        code: answer.code,
        message: text(&answer.json()["message"]),
    })
}
