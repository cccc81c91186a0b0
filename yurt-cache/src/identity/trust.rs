//! Whom an issuer's keys vouch for: genuine, of this issuer, for this audience. Time is judged elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::keys::{KeySet, Verification};
use super::token::{Account, Jwt};

/// Audiences that are known to mean us, at most: a server has one or two.
const AUDIENCES: usize = 16;

/// An issuer of tokens, the audience that means us, and its keys.
#[derive(Clone)]
pub(crate) struct Trust {
    saved: SavedTrust,
    keys: KeySet,
}

/// What an issuer's keys say of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vouch {
    For(Account),
    /// Genuine, and for somebody else: its audiences are not ours.
    OtherAudience,
    /// By a key that came since, or by nobody's.
    UnknownKey,
    /// By none of its keys, though it names one.
    Forged,
    No,
}

/// What of an issuer is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedTrust {
    pub(crate) issuer: String,
    /// Those that are known to mean us; the issuer itself if there are none, as in kube-apiserver unless
    /// `--api-audiences` says otherwise.
    pub(crate) audiences: Vec<String>,
    /// The key set as the server has it.
    pub(crate) keys: String,
}

impl Trust {
    /// Returns the trust in what was remembered, `None` if there are no keys in it.
    pub(crate) fn from_saved(saved: SavedTrust) -> Option<Self> {
        let keys = KeySet::parse(saved.keys.as_bytes()).ok()?;
        let is_usable = !keys.is_empty() && !saved.issuer.is_empty();
        is_usable.then_some(Self { saved, keys })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.saved.issuer
    }

    pub(crate) fn audiences(&self) -> &[String] {
        &self.saved.audiences
    }

    /// Returns what is to be remembered when another audience means us.
    pub(crate) fn saved_with(&self, audience: &str) -> SavedTrust {
        let mut saved = self.saved.clone();
        saved.add_audiences(&[audience.to_owned()]);
        saved
    }

    /// Returns whether an audience means us.
    pub(crate) fn takes(&self, audience: &String) -> bool {
        if self.saved.audiences.is_empty() {
            *audience == self.saved.issuer
        } else {
            self.saved.audiences.contains(audience)
        }
    }

    /// Judges all of a token but its times.
    pub(crate) fn vouch(&self, token: &Jwt<'_>) -> Vouch {
        if token.claims.issuer != self.saved.issuer {
            return Vouch::No;
        }
        match self.keys.verify(token) {
            Verification::Good => {}
            Verification::Bad if token.key_id.is_some() => return Vouch::Forged,
            Verification::Bad => return Vouch::No,
            Verification::UnknownKey => return Vouch::UnknownKey,
        }
        let is_ours = |audience: &String| self.takes(audience);
        match &token.claims.account {
            Some(account) if token.claims.audiences.iter().any(is_ours) => {
                Vouch::For(account.clone())
            }
            Some(_) => Vouch::OtherAudience,
            None => Vouch::No,
        }
    }
}

impl SavedTrust {
    /// Adds audiences, up to a few.
    pub(crate) fn add_audiences(&mut self, audiences: &[String]) {
        for audience in audiences {
            if self.audiences.len() < AUDIENCES && !self.audiences.contains(audience) {
                self.audiences.push(audience.clone());
            }
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("issuer", &self.saved.issuer)
            .field("audiences", &self.saved.audiences)
            .finish_non_exhaustive()
    }
}
