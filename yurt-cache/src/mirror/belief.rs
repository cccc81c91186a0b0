//! How far a mirror is to be believed: what it may miss, and what may be wrong of what it holds.

use super::kind::Covering;
use super::version::{Era, Version};
use super::{Mirror, Phase, State};
use crate::api::Selection;
use crate::codec::fields::Attributes;

impl Mirror {
    /// Returns whether what it holds may not be what the cloud has, and no list has come since: the store was damaged, or
    /// it is outdated.
    pub(crate) fn is_suspect(&self) -> bool {
        let state = self.state.read();
        state.is_suspect || state.is_before(self.kind.era())
    }

    /// Returns whether the cloud's revisions have gone back since it was listed, as anybody has seen who reads the kind:
    /// they name other objects now.
    pub(crate) fn is_outdated(&self) -> bool {
        self.state.read().is_before(self.kind.era())
    }

    /// Looks whether something of what it holds was found damaged: then it is not believed until it is listed again.
    pub(crate) fn check_damage(&self) {
        let damaged = self.kind.bodies.damaged();
        if !damaged.iter().any(|key| self.cloud_version(key).is_some()) {
            return;
        }
        if std::mem::replace(&mut self.state.write().is_suspect, true) {
            return;
        }
        tracing::warn!(scope = %self.scope, "what is stored of the mirror is damaged: it is listed again");
        self.changed.send_replace(());
    }

    /// Returns what it knows of an object of its own place.
    pub(crate) fn covering(&self, key: &str) -> Covering {
        let state = self.state.read();
        Covering {
            version: state.history.member(key).map(|member| member.version),
            followed: state.followed(),
            revision: state.history.revision(),
        }
    }

    /// Returns whether it is asked what there is in the place of an object, and has not come as far as a version of it.
    pub(crate) fn may_miss(&self, key: &str, version: Version) -> bool {
        let is_asked = || {
            let selection = Selection::of(&self.scope);
            self.scope.is_by_key() && selection.matches(key, &Attributes::default())
        };
        let state = self.state.read();
        !matches!(state.phase, Phase::Refused(_) | Phase::Failed(_))
            && state.followed() < version
            && is_asked()
    }

    /// Tells the kind how far the upstream watch has come.
    pub(super) fn note_followed(&self) {
        self.kind.note_reached(self.state.read().followed());
    }
}

impl State {
    fn is_before(&self, era: Era) -> bool {
        self.is_synced() && self.history.era() < era
    }

    fn followed(&self) -> Version {
        Version::cloud(self.history.era(), self.history.upstream())
    }
}
