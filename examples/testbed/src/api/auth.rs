//! Who asks, and whether they may.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{request::Target, status::ApiError};

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's name, such as `system:node:n1`.
    pub name: String,
    /// The groups it is in.
    pub groups: Vec<String>,
}

/// What a caller wants to do, as RBAC would see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The plural, such as `pods`.
    pub resource: String,
    /// Such as `status`, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// The path, when no resource is asked for.
    pub path: String,
}

/// Decides what a caller may do.
#[derive(Clone)]
pub struct Authorizer(Arc<Decide>);

type Decide = dyn Fn(&User, &Attributes) -> bool + Send + Sync;

impl User {
    /// Makes a user of a name and groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }
}

impl Authorizer {
    /// Asks `decide` about every request.
    pub fn new(decide: impl Fn(&User, &Attributes) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    pub(crate) fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        user.groups.iter().any(|group| group == "system:masters") || (self.0)(user, attributes)
    }

    /// Refuses in the real server's words.
    pub(crate) fn check(&self, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
        if self.allows(user, attributes) {
            return Ok(());
        }
        let Attributes {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            path,
        } = attributes;
        let who = &user.name;
        if resource.is_empty() {
            let message = format!("forbidden: User {who:?} cannot {verb} path {path:?}");
            return Err(ApiError::forbidden(message, "", ""));
        }
        let qualified = if group.is_empty() {
            resource.clone()
        } else {
            format!("{resource}.{group}")
        };
        let subject = if name.is_empty() {
            qualified
        } else {
            format!("{qualified} {name:?}")
        };
        let what = if subresource.is_empty() {
            resource.clone()
        } else {
            format!("{resource}/{subresource}")
        };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let message = format!(
            "{subject} is forbidden: User {who:?} cannot {verb} resource {what:?} in API group {group:?} {place}"
        );
        Err(ApiError::forbidden(message, resource, name))
    }
}

impl Default for Authorizer {
    /// Allows every authenticated caller everything.
    fn default() -> Self {
        Self::new(|_, _| true)
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorizer")
    }
}

impl Attributes {
    pub(crate) fn of(verb: &str, target: &Target, single_name: Option<&str>) -> Self {
        Self {
            verb: verb.to_owned(),
            group: target.group.clone(),
            resource: target.plural.clone(),
            subresource: target.subresource.clone().unwrap_or_default(),
            namespace: target.namespace.clone().unwrap_or_default(),
            name: target
                .name
                .as_deref()
                .or(single_name)
                .unwrap_or_default()
                .to_owned(),
            path: String::new(),
        }
    }
}

/// Finds the caller: the client certificate first, else the bearer token.
///
/// A certificate comes first, as in the real server: a bad token beside it is not looked at.
pub(crate) fn authenticate(
    headers: &HeaderMap,
    certificate: Option<&User>,
    find: impl FnOnce(&str) -> Option<User>,
) -> Option<User> {
    if let Some(user) = certificate {
        return Some(authenticated(user.clone()));
    }
    let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let token = header.strip_prefix("Bearer ")?.trim();
    find(token).map(authenticated)
}

fn authenticated(mut user: User) -> User {
    if !user
        .groups
        .iter()
        .any(|group| group == "system:authenticated")
    {
        user.groups.push("system:authenticated".into());
    }
    user
}

/// Reads user and groups from the subject of a verified client certificate.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok().map(str::to_owned))
        .collect();
    Some(User {
        name: name.to_owned(),
        groups,
    })
}
