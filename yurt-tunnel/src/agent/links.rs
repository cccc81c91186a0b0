//! Which links are begun and ended, as servers come, go and come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::{Shared, Standing, pick};
use crate::children::Children;

/// How long a replacement is kept after the server that it replaced is back, so that one which comes and goes does
/// not take the others along.
const LINGER: Duration = Duration::from_secs(10);

/// A link that is kept.
#[derive(Debug)]
struct Link {
    stop: CancellationToken,
    name: String,
    /// Since when it is not wanted.
    spare_since: Option<Instant>,
}

/// The links that are kept, and those that let their streams finish.
#[derive(Debug, Default)]
pub(super) struct Links {
    kept: BTreeMap<SocketAddr, Link>,
    pub(super) keepers: Children,
}

impl Links {
    /// Begins and ends links as they are wanted now; returns when to look again.
    pub(super) fn settle(&mut self, shared: &Arc<Shared>, now: Instant) -> Option<Instant> {
        let servers = shared.known.lock().servers();
        let order = pick::order(&shared.config.node_name, servers.keys().copied());
        let wanted = {
            let standings = shared.standings.lock();
            let is_away = |server: &SocketAddr| standings.get(server) == Some(&Standing::Away);
            pick::wanted(&order, shared.config.links, is_away)
        };
        let wanted = &order[..wanted];
        self.kept.retain(|server, link| {
            let is_same = servers.get(server) == Some(&link.name);
            if wanted.contains(server) && is_same {
                link.spare_since = None;
                return true;
            }
            let since = *link.spare_since.get_or_insert(now);
            let is_kept = is_same && now < since + LINGER;
            if !is_kept {
                link.stop.cancel();
                shared.standings.lock().remove(server);
            }
            is_kept
        });
        for server in wanted {
            if let (false, Some(name)) = (self.kept.contains_key(server), servers.get(server)) {
                self.begin(shared, *server, name);
            }
        }
        let spares = self.kept.values().filter_map(|link| link.spare_since);
        spares.map(|since| since + LINGER).min()
    }

    fn begin(&mut self, shared: &Arc<Shared>, server: SocketAddr, name: &str) {
        let stop = CancellationToken::new();
        let keeper = Keeper::new(shared.clone(), server, name.to_owned());
        let task = format!("the link to {server}");
        self.keepers.spawn(task, keeper.run(stop.clone()));
        let link = Link {
            stop,
            name: name.to_owned(),
            spare_since: None,
        };
        self.kept.insert(server, link);
    }

    /// Lets every stream finish, for so long; what is left then is cut.
    pub(super) async fn end(mut self, limit: Duration) {
        for link in self.kept.values() {
            link.stop.cancel();
        }
        if timeout(limit, self.keepers.join()).await.is_err() {
            tracing::warn!(?limit, "streams are cut that have not finished in time");
        }
        self.keepers.shutdown().await;
    }
}
