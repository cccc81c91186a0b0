//! Which filter is for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The filters, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FilterName {
    /// Endpoints on this node or in its pool only, where a Service's annotation `openyurt.io/topologyKeys` says so.
    ServiceTopology,
    /// The Service `default/kubernetes` has the hub's address.
    MasterService,
    /// Load balancers that are of use in the cloud only are hidden.
    DiscardCloudService,
    /// kube-proxy's configuration takes the API server of its pod's environment.
    InClusterConfig,
    /// Node ports open in the pools that `nodeport.openyurt.io/listen` names.
    NodePortIsolation,
    /// Traffic to the API server's cluster IP goes to the hub.
    ForwardKubeSvcTraffic,
    /// Containers that set the API server's address themselves get the hub's.
    ServiceEnvUpdater,
}

impl FilterName {
    /// Every filter, in the order in which they are applied.
    pub const ALL: [Self; 7] = [
        Self::ServiceTopology,
        Self::MasterService,
        Self::DiscardCloudService,
        Self::InClusterConfig,
        Self::NodePortIsolation,
        Self::ForwardKubeSvcTraffic,
        Self::ServiceEnvUpdater,
    ];

    /// Returns the name as configurations have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceTopology => "servicetopology",
            Self::MasterService => "masterservice",
            Self::DiscardCloudService => "discardcloudservice",
            Self::InClusterConfig => "inclusterconfig",
            Self::NodePortIsolation => "nodeportisolation",
            Self::ForwardKubeSvcTraffic => "forwardkubesvctraffic",
            Self::ServiceEnvUpdater => "serviceenvupdater",
        }
    }

    /// Returns for whom the filter is when nobody says otherwise.
    fn default_callers(self) -> BTreeSet<CallerName> {
        let system = |name: &str| CallerName::ServiceAccount {
            namespace: "kube-system".to_owned(),
            name: name.to_owned(),
        };
        match self {
            Self::MasterService | Self::InClusterConfig | Self::ServiceEnvUpdater => {
                BTreeSet::from([CallerName::Node])
            }
            Self::ServiceTopology => BTreeSet::from([system("kube-proxy"), system("coredns")]),
            Self::DiscardCloudService | Self::NodePortIsolation | Self::ForwardKubeSvcTraffic => {
                BTreeSet::from([system("kube-proxy")])
            }
        }
    }
}

impl fmt::Display for FilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FilterName {
    type Err = UnknownFilter;

    fn from_str(text: &str) -> Result<Self, UnknownFilter> {
        let mut all = Self::ALL.into_iter();
        all.find(|name| name.as_str() == text)
            .ok_or_else(|| UnknownFilter(text.to_owned()))
    }
}

/// A text that names no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no filter {0:?}")]
pub struct UnknownFilter(String);

/// An authenticated caller, as configurations name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CallerName {
    /// `node`: whoever shows this node's certificate, as its kubelet does.
    Node,
    /// `system:serviceaccount:<namespace>:<name>`.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::ServiceAccount { namespace, name } => {
                write!(f, "system:serviceaccount:{namespace}:{name}")
            }
        }
    }
}

impl FromStr for CallerName {
    type Err = InvalidCaller;

    fn from_str(text: &str) -> Result<Self, InvalidCaller> {
        if text == "node" {
            return Ok(Self::Node);
        }
        let account = text.strip_prefix("system:serviceaccount:");
        match account.and_then(|account| account.split_once(':')) {
            Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
                Ok(Self::ServiceAccount {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(InvalidCaller(text.to_owned())),
        }
    }
}

fn is_label(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_word)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// A text that names no caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither node nor system:serviceaccount:<namespace>:<name>")]
pub struct InvalidCaller(String);

/// For whom each filter is. [`Default`] is what a node with kube-proxy and CoreDNS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    callers: BTreeMap<FilterName, BTreeSet<CallerName>>,
}

impl FilterConfig {
    /// Returns a configuration in which every filter is off.
    #[must_use]
    pub fn off() -> Self {
        Self {
            callers: BTreeMap::new(),
        }
    }

    /// Sets for whom a filter is; for nobody switches it off.
    pub fn set(&mut self, filter: FilterName, callers: impl IntoIterator<Item = CallerName>) {
        self.callers.insert(filter, callers.into_iter().collect());
    }

    /// Returns for whom a filter is, in order.
    pub fn callers(&self, filter: FilterName) -> impl Iterator<Item = &CallerName> {
        self.callers.get(&filter).into_iter().flatten()
    }

    /// Returns whether a filter is for a caller.
    pub(crate) fn is_for(&self, filter: FilterName, caller: &CallerName) -> bool {
        self.callers
            .get(&filter)
            .is_some_and(|callers| callers.contains(caller))
    }
}

impl Default for FilterConfig {
    fn default() -> Self {
        let callers = FilterName::ALL.map(|name| (name, name.default_callers()));
        Self {
            callers: callers.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_not() {
        for name in FilterName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert!("MasterService".parse::<FilterName>().is_err());
        for caller in ["node", "system:serviceaccount:kube-system:kube-proxy"] {
            assert_eq!(
                caller
                    .parse::<CallerName>()
                    .map(|caller| caller.to_string()),
                Ok(caller.to_owned())
            );
        }
        for bad in [
            "",
            "kubelet",
            "system:serviceaccount:a",
            "system:serviceaccount::a",
            "system:serviceaccount:a:b:c",
            "system:serviceaccount:a:b/c",
        ] {
            assert!(bad.parse::<CallerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_filter_for_nobody_is_off_and_the_others_stay() {
        let mut config = FilterConfig::default();
        config.set(FilterName::MasterService, []);
        assert!(!config.is_for(FilterName::MasterService, &CallerName::Node));
        assert!(config.is_for(FilterName::InClusterConfig, &CallerName::Node));
        assert_eq!(
            FilterConfig::off()
                .callers(FilterName::InClusterConfig)
                .count(),
            0
        );
    }
}
