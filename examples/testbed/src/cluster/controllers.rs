//! What makes a cluster of an API server: kube-controller-manager and kube-scheduler, and their credentials.

use std::{fmt::Write, path::Path};

use serde_json::json;

use super::{Binaries, Error, Servers, kubeconfig, write};
use crate::pki::Pki;

/// That a cluster has its controllers and its scheduler, and how they are started.
///
/// Then namespaces have service accounts, Services have EndpointSlices, Deployments have pods, and the pods of
/// a node that is silent for long are evicted.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    /// More arguments of kube-controller-manager, such as `--node-monitor-grace-period=20s`.
    pub arguments: Vec<String>,
    /// More arguments of kube-scheduler.
    pub scheduler_arguments: Vec<String>,
}

/// Starts both; they wait by themselves until the API server is ready.
pub(super) fn start(
    controllers: &Controllers,
    servers: &mut Servers,
    binaries: &Binaries,
    pki: &Pki,
    server: &str,
) -> Result<(), Error> {
    let folder = servers.folder().to_owned();
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let config = client_config(&folder, pki, server, name)?;
        write(folder.join(format!("{name}.conf")), &config)?;
    }
    write(folder.join("ca.key"), pki.ca_key_pem())?;
    let manager = [
        "--kubeconfig=kube-controller-manager.conf",
        "--use-service-account-credentials",
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=ca.pem",
        "--cluster-signing-cert-file=ca.pem",
        "--cluster-signing-key-file=ca.key",
        "--leader-elect=false",
        // Several clusters may run at once.
        "--secure-port=0",
    ];
    let manager = manager.iter().map(|&argument| argument.to_owned());
    servers.spawn(
        "kube-controller-manager",
        &binaries.kubernetes("kube-controller-manager")?,
        &manager
            .chain(controllers.arguments.iter().cloned())
            .collect::<Vec<_>>(),
    )?;
    let scheduler = [
        "--kubeconfig=kube-scheduler.conf",
        "--leader-elect=false",
        "--secure-port=0",
    ];
    let scheduler = scheduler.iter().map(|&argument| argument.to_owned());
    servers.spawn(
        "kube-scheduler",
        &binaries.kubernetes("kube-scheduler")?,
        &scheduler
            .chain(controllers.scheduler_arguments.iter().cloned())
            .collect::<Vec<_>>(),
    )
}

fn client_config(folder: &Path, pki: &Pki, server: &str, name: &str) -> Result<String, Error> {
    let (mut pem, key) = pki.client(&format!("system:{name}"), &[]);
    write!(pem, "{key}").expect("writing to a text does not fail");
    let file = folder.join(format!("{name}.pem"));
    write(file.clone(), &pem)?;
    let user = json!({"client-certificate": file, "client-key": file});
    Ok(kubeconfig(server, &folder.join("ca.pem"), user))
}
