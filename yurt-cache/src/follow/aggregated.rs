//! Aggregated APIs: another server answers for the kube-apiserver, and may show each caller something else. What
//! one was shown is nothing to another, so they are forwarded and leave nothing here. The kube-apiserver's own
//! groups and custom resources are the same for whoever may see them.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::definition;
use super::registry::Registry;
use crate::api::Resource;
use crate::api::well_known::may_be_custom;
use crate::codec::field;
use crate::discovery;
use crate::identity::Caller;

/// What the kube-apiserver calls its description of custom resources
/// (`apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`).
const CUSTOM: &str = "Kubernetes CRD Swagger";

/// What it calls its description of a group of its own, such as one that is newer than this.
const OWN: &str = "Kubernetes";

/// For how long an API is taken for aggregated before the cloud is asked again: a definition may have come.
const BELIEVED: Duration = Duration::from_secs(30);

/// Resources whose server is known at most; callers can make names up.
const MOST: usize = 256;

/// Who answers for the resources that were asked for.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<HashMap<Resource, Server>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    KubeApiserver,
    /// Another one, as was found at this time.
    Other(Instant),
}

impl Servers {
    fn known(&self, resource: &Resource, now: Instant) -> Option<Server> {
        let known = self.0.lock().get(resource).copied();
        known.filter(|server| match server {
            Server::KubeApiserver => true,
            Server::Other(since) => now.duration_since(*since) < BELIEVED,
        })
    }

    fn note(&self, resource: &Resource, server: Server, is_held: impl Fn(&Resource) -> bool) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            // Who makes names up takes nothing from who asks for what is there.
            known.retain(|one, server| *server == Server::KubeApiserver && is_held(one));
        }
        known.insert(resource.clone(), server);
    }
}

impl Registry {
    /// Returns whether what one caller is shown of a resource may be shown to others who may see it. Asks the cloud
    /// as this caller the first time, and takes a resource of which it learns nothing for one that may not.
    ///
    /// # Cancel safety
    /// What was not learned is asked for again.
    pub(crate) async fn may_share(&self, caller: &Caller, resource: &Resource) -> bool {
        if !may_be_custom(resource) {
            return true;
        }
        let now = Instant::now();
        if let Some(server) = self.servers.known(resource, now) {
            return server == Server::KubeApiserver;
        }
        let Some(is_custom) = self.is_custom(caller, resource).await else {
            return false;
        };
        self.servers.note(
            resource,
            if is_custom {
                Server::KubeApiserver
            } else {
                Server::Other(now)
            },
            |one| self.known_kind(one).is_some_and(|kind| !kind.is_empty()),
        );
        is_custom
    }

    /// The same while the cloud is away: what is held was taken over because it may be shared, unless it has turned
    /// out since that it may not.
    pub(crate) fn may_share_held(&self, resource: &Resource) -> bool {
        let known = self.servers.0.lock().get(resource).copied();
        matches!(known, None | Some(Server::KubeApiserver))
    }

    /// Returns whether it is known that no other server answers for a resource.
    pub(crate) fn is_served_by_kube_apiserver(&self, resource: &Resource) -> bool {
        let known = self.servers.0.lock().get(resource).copied();
        !may_be_custom(resource) || known == Some(Server::KubeApiserver)
    }

    /// Returns whether a definition makes the resource; `None` if the cloud does not say.
    async fn is_custom(&self, caller: &Caller, resource: &Resource) -> Option<bool> {
        let upstream = &self.config().upstream;
        let is_kubernetes = resource.group.ends_with(".k8s.io");
        match definition::fetch(upstream, caller, resource).await {
            Ok(text) if definition::serves(&text, &resource.version) => return Some(true),
            Ok(_) => return Some(false),
            Err(Some(StatusCode::NOT_FOUND)) if !is_kubernetes => return Some(false),
            Err(_) => {}
        }
        // Who may not read definitions may read descriptions, as every authenticated caller may.
        let path = format!("/openapi/v3/apis/{}/{}", resource.group, resource.version);
        let text = definition::text(upstream, caller, &path, discovery::LIMIT).await;
        let title = title(&text.ok()?)?;
        Some(title == CUSTOM || (is_kubernetes && title == OWN))
    }
}

/// Returns the title of an OpenAPI description.
fn title(description: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Info {
        title: String,
    }
    let text = std::str::from_utf8(description).ok()?;
    let info: Info = serde_json::from_str(field(text, "info")?.get()).ok()?;
    Some(info.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_of_custom_resources_says_so() {
        let custom = br#"{"openapi":"3.0.0","info":{"title":"Kubernetes CRD Swagger","version":"v0.1.0"},"paths":{}}"#;
        assert_eq!(title(custom).as_deref(), Some(CUSTOM));
        let other = br#"{"openapi":"3.0.0","info":{"title":"Wardle"}}"#;
        assert_eq!(title(other).as_deref(), Some("Wardle"));
        for odd in [&b"{}"[..], b"", b"{\"info\":{}}", b"\xff"] {
            assert_eq!(title(odd), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_aggregated_api_is_asked_about_again_after_a_while_and_names_do_not_pile_up() {
        let servers = Servers::default();
        let things = Resource::new("try.test", "v1", "things");
        let now = Instant::now();
        servers.note(&things, Server::Other(now), |_| false);
        assert_eq!(servers.known(&things, now), Some(Server::Other(now)));
        assert_eq!(servers.known(&things, now + BELIEVED), None);
        servers.note(&things, Server::KubeApiserver, |_| false);
        assert_eq!(
            servers.known(&things, now + 100 * BELIEVED),
            Some(Server::KubeApiserver)
        );
        for number in 0..2 * MOST {
            let made_up = Resource::new(&format!("g{number}.test"), "v1", "things");
            servers.note(&made_up, Server::Other(now), |one| *one == things);
        }
        assert!(servers.0.lock().len() <= MOST);
        assert_eq!(servers.known(&things, now), Some(Server::KubeApiserver));
    }
}
