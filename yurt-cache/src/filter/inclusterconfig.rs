//! `inclusterconfig`: kube-proxy's configuration takes the API server of its pod's environment, where the
//! hub's address is, and not that of a kubeconfig.

use serde_json::Value;

use super::context::Context;
use super::{Filter, Need, Outcome, Undecided, contains, names};
use crate::api::Resource;

/// The key of kube-proxy's configuration, as kubeadm writes it.
const KEY: &str = "config.conf";

#[derive(Debug)]
pub(super) struct InClusterConfig;

impl Filter for InClusterConfig {
    fn concerns(&self, resource: &Resource) -> bool {
        resource.group.is_empty() && resource.plural == "configmaps"
    }

    fn needs(&self) -> Need {
        Need::Hub
    }

    fn may_hide(&self) -> bool {
        false
    }

    fn may_concern(&self, object: &[u8], _context: &Context) -> bool {
        contains(object, "\"kube-proxy\"") && contains(object, KEY)
    }

    fn apply(&self, object: &mut Value, _context: &Context) -> Result<Outcome, Undecided> {
        if names(object) != ("kube-system", "kube-proxy") {
            return Ok(Outcome::Keep);
        }
        let Some(text) = object.get_mut("data").and_then(|data| data.get_mut(KEY)) else {
            return Ok(Outcome::Keep);
        };
        let old = text
            .as_str()
            .ok_or(Undecided::Malformed("data[config.conf]"))?;
        let lines: Vec<String> = old.split('\n').map(without_kubeconfig).collect();
        let new = lines.join("\n");
        if new == old {
            return Ok(Outcome::Keep);
        }
        *text = new.into();
        Ok(Outcome::Changed)
    }
}

/// Comments out a line that names a kubeconfig.
fn without_kubeconfig(line: &str) -> String {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("kubeconfig:"), Some(_), None) => line.replacen("kubeconfig:", "#kubeconfig:", 1),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{check, context};
    use super::*;

    #[test]
    fn lines_with_a_kubeconfig_are_commented_out_and_no_others() {
        let map = |name: &str, text: &str| {
            json!({"metadata": {"namespace": "kube-system", "name": name},
                "data": {"config.conf": text, "kubeconfig.conf": "kubeconfig: a"}})
        };
        for (given, expected) in [
            (
                "clientConnection:\n  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 0\r\n",
                "clientConnection:\n  #kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 0\r\n",
            ),
            (
                "kubeconfig: \"\"\nmode: \"\"",
                "#kubeconfig: \"\"\nmode: \"\"",
            ),
            (
                "kubeconfig:\nkubeconfig: a b\n#kubeconfig: a\nxkubeconfig: a\n",
                "kubeconfig:\nkubeconfig: a b\n#kubeconfig: a\nxkubeconfig: a\n",
            ),
            ("", ""),
        ] {
            check(
                &InClusterConfig,
                &map("kube-proxy", given),
                &context(),
                Ok(Some(map("kube-proxy", expected))),
            );
            let other = map("other", given);
            check(
                &InClusterConfig,
                &other,
                &context(),
                Ok(Some(other.clone())),
            );
        }
        let odd = json!({"metadata": {"namespace": "kube-system", "name": "kube-proxy"}, "data": {"config.conf": 1}});
        check(
            &InClusterConfig,
            &odd,
            &context(),
            Err(Undecided::Malformed("data[config.conf]")),
        );
    }
}
