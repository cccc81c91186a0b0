//! The cloud of the story: an API server inside this process, or a real cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::api::{ApiConfig, ApiServer};
use testbed::client::{self, Answer, Client};
use testbed::endpoint::Endpoint;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bridge::{self, Bridge};
use crate::kubeconfig::Access;
use crate::object::{self, Place};

/// The node of the story.
pub(crate) const NODE: &str = "edge-1";

/// How many objects are created at once.
const WRITERS: usize = 16;

/// How often the cluster is asked whether it serves the geese by now.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The cloud, seen by its administrator.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// What it is, for people.
    pub(crate) words: String,
    /// Its URL, for people.
    pub(crate) url: String,
    /// Where the link leads.
    pub(crate) address: SocketAddr,
    /// The CA behind the link.
    pub(crate) ca_pem: String,
    /// The node's own certificate and key, where the cloud gives it one.
    pub(crate) node: Option<(String, String)>,
    pub(crate) place: Place,
    admin: Arc<Client>,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Inside(ApiServer),
    /// The bridges to it, the administrator's and the node's; they end with this.
    Cluster {
        _bridges: Box<[Bridge; 2]>,
    },
}

/// What can go wrong in the cloud.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// No port for the server inside.
    #[error("start the API server inside this process")]
    Start(#[source] io::Error),
    /// The cluster of the kubeconfig does not answer.
    #[error("reach {url}")]
    Reach {
        /// The cluster.
        url: String,
        /// Why not.
        source: bridge::Error,
    },
    /// A request got no answer.
    #[error("ask the cloud")]
    Ask(#[source] client::Error),
    /// A request was refused.
    #[error("the cloud refuses to {what}: {code} {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The answer's code.
        code: u16,
        /// What it says.
        message: String,
    },
    /// A task of ours died.
    #[error("create the objects")]
    Create(#[source] tokio::task::JoinError),
}

impl Cloud {
    /// Starts an API server inside this process.
    pub(crate) async fn inside() -> Result<Self, Error> {
        let server = ApiServer::start(ApiConfig::default()).await;
        let server = server.map_err(Error::Start)?;
        let endpoint = server.endpoint();
        Ok(Self {
            words: "inside this process".to_owned(),
            url: endpoint.url.clone(),
            address: server.addr(),
            ca_pem: endpoint.ca_pem.clone(),
            node: Some(
                server
                    .pki()
                    .client(&format!("system:node:{NODE}"), &["system:nodes"]),
            ),
            place: Place::random(),
            admin: Arc::new(Client::new(&endpoint).map_err(Error::Ask)?),
            server: Server::Inside(server),
        })
    }

    /// Takes a real cluster; writes nothing yet.
    pub(crate) async fn cluster(access: Access) -> Result<Self, Error> {
        let reach = |source| Error::Reach {
            url: access.url.clone(),
            source,
        };
        let admin = Bridge::start(&access.server, access.certificate.as_ref()).map_err(reach)?;
        admin.check().await.map_err(reach)?;
        let node = Bridge::start(&access.server, None).map_err(reach)?;
        let endpoint = Endpoint {
            url: format!("https://{}", admin.address()),
            ca_pem: admin.ca_pem().to_owned(),
            admin_token: String::new(),
        };
        let client = match (&access.certificate, &access.token) {
            (None, Some(token)) => Client::with_token(&endpoint, token),
            (_, _) => {
                let (certificate, key) = admin.key();
                Client::with_certificate(&endpoint, &certificate, &key)
            }
        };
        Ok(Self {
            words: format!("context {:?}", access.context),
            url: access.url,
            address: node.address(),
            ca_pem: node.ca_pem().to_owned(),
            node: None,
            place: Place::random(),
            admin: Arc::new(client.map_err(Error::Ask)?),
            server: Server::Cluster {
                _bridges: Box::new([admin, node]),
            },
        })
    }

    /// Creates everything of the story.
    pub(crate) async fn fill(&self) -> Result<(), Error> {
        for (path, object) in self.place.foundations() {
            self.create(&path, &object).await?;
        }
        self.fill_stations().await?;
        let geese = self.place.geese();
        while self.admin.get(&geese).await.map_err(Error::Ask)?.code != 200 {
            // The definition is there; the server serves it a moment later.
            sleep(ASK_AGAIN).await;
        }
        for (name, honk) in object::GEESE {
            self.create(&geese, &self.place.goose(name, honk)).await?;
        }
        Ok(())
    }

    async fn fill_stations(&self) -> Result<(), Error> {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (admin, path) = (self.admin.clone(), self.place.stations());
            writers.spawn(async move {
                for index in (writer..object::STATIONS).step_by(WRITERS) {
                    create(&admin, &path, &object::station(index)).await?;
                }
                Ok(())
            });
        }
        while let Some(written) = writers.join_next().await {
            written.map_err(Error::Create)??;
        }
        Ok(())
    }

    /// Returns a token with which clients may read the story's objects and create some, nothing else.
    pub(crate) async fn token(&self) -> Result<String, Error> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        });
        let token = self.create(&self.place.token(), &request).await?;
        Ok(text(&token["status"]["token"]))
    }

    /// Posts an object.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        create(&self.admin, path, object).await
    }

    /// Gets whatever is there.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.admin.get(path).await.map_err(Error::Ask)
    }

    /// Changes an object by a merge patch.
    pub(crate) async fn change(&self, path: &str, change: Value) -> Result<Value, Error> {
        let answer = self.admin.patch(path, "merge", &change).await;
        checked(&format!("change {path}"), answer.map_err(Error::Ask)?)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        let answer = self.admin.delete(path, None).await.map_err(Error::Ask)?;
        checked(&format!("delete {path}"), answer).map(drop)
    }

    /// Counts the lists and watches of stations and geese that the cloud has served, where it can tell.
    pub(crate) fn reads(&self) -> Option<u64> {
        let Server::Inside(server) = &self.server else {
            return None;
        };
        let verbs = ["list", "watch"];
        let of = |resource| {
            verbs
                .map(|verb| server.count(verb, resource))
                .iter()
                .sum::<u64>()
        };
        Some(of("configmaps") + of("geese"))
    }

    /// Takes everything out of a real cluster again; absent things are fine.
    pub(crate) async fn clean(&self) -> Result<(), Error> {
        if matches!(self.server, Server::Inside(_)) {
            return Ok(());
        }
        let namespace = format!("/api/v1/namespaces/{}", self.place.namespace);
        let mut first = Ok(());
        for path in [namespace, self.place.definition()] {
            let deleted = match self.delete(&path).await {
                Err(Error::Refused { code: 404, .. }) => Ok(()),
                deleted => deleted,
            };
            first = first.and(deleted);
        }
        first
    }
}

async fn create(admin: &Client, path: &str, object: &Value) -> Result<Value, Error> {
    let answer = admin.post(path, object).await.map_err(Error::Ask)?;
    checked(&format!("create {}", text(&object["kind"])), answer)
}

fn checked(what: &str, answer: Answer) -> Result<Value, Error> {
    if (200..300).contains(&answer.code) {
        return Ok(answer.json());
    }
    Err(Error::Refused {
        what: what.to_owned(),
        code: answer.code,
        message: text(&answer.json()["message"]),
    })
}

/// A JSON string's text, empty for anything else.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
