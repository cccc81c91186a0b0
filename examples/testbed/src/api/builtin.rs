//! The built-in resources, as far as tests need them.

use super::{
    resource::{Column, Resource},
    selector::FieldStyle,
};

/// `group version plural Kind short-names flags`: flags are N(amespaced), S(tatus), G(eneration),
/// K(eeps status on create), C(reates on update), V(ersion needed to update), D(eletion answers with the object).
const TABLE: &str = "\
- v1 configmaps ConfigMap cm N
- v1 endpoints Endpoints ep NC
- v1 events Event ev NC
- v1 limitranges LimitRange limits NC
- v1 namespaces Namespace ns S
- v1 nodes Node no SK
- v1 persistentvolumeclaims PersistentVolumeClaim pvc NSD
- v1 persistentvolumes PersistentVolume pv SD
- v1 pods Pod po NSGD
- v1 podtemplates PodTemplate - NGD
- v1 replicationcontrollers ReplicationController rc NSG
- v1 resourcequotas ResourceQuota quota NSD
- v1 secrets Secret - N
- v1 serviceaccounts ServiceAccount sa ND
- v1 services Service svc NSD
apiextensions.k8s.io v1 customresourcedefinitions CustomResourceDefinition crd,crds SG
apps v1 controllerrevisions ControllerRevision - N
apps v1 daemonsets DaemonSet ds NSG
apps v1 deployments Deployment deploy NSG
apps v1 replicasets ReplicaSet rs NSG
apps v1 statefulsets StatefulSet sts NSG
autoscaling v2 horizontalpodautoscalers HorizontalPodAutoscaler hpa NS
batch v1 cronjobs CronJob cj NSG
batch v1 jobs Job - NSG
certificates.k8s.io v1 certificatesigningrequests CertificateSigningRequest csr SV
coordination.k8s.io v1 leases Lease - NCV
discovery.k8s.io v1 endpointslices EndpointSlice - NG
events.k8s.io v1 events Event ev NC
networking.k8s.io v1 ingressclasses IngressClass - G
networking.k8s.io v1 ingresses Ingress ing NSG
networking.k8s.io v1 networkpolicies NetworkPolicy netpol NG
node.k8s.io v1 runtimeclasses RuntimeClass - -
policy v1 poddisruptionbudgets PodDisruptionBudget pdb NSGV
rbac.authorization.k8s.io v1 clusterrolebindings ClusterRoleBinding - C
rbac.authorization.k8s.io v1 clusterroles ClusterRole - C
rbac.authorization.k8s.io v1 rolebindings RoleBinding - NC
rbac.authorization.k8s.io v1 roles Role - NC
scheduling.k8s.io v1 priorityclasses PriorityClass pc G
storage.k8s.io v1 csidrivers CSIDriver - C
storage.k8s.io v1 csinodes CSINode - C
storage.k8s.io v1 storageclasses StorageClass sc C
storage.k8s.io v1 volumeattachments VolumeAttachment - S";

pub(super) fn resources() -> Vec<Resource> {
    TABLE.lines().map(parse).collect()
}

fn parse(line: &str) -> Resource {
    let words: Vec<&str> = line.split(' ').collect();
    let [group, version, plural, kind, short, flags] = words[..] else {
        unreachable!("every line of the table has six words")
    };
    let group = group.trim_matches('-');
    let has = |flag: char| flags.contains(flag);
    let (selectable, field_style) = selectable(group, plural);
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short_names: short
            .split(',')
            .filter(|name| *name != "-")
            .map(str::to_owned)
            .collect(),
        categories: categories(plural),
        is_namespaced: has('N'),
        has_status: has('S'),
        keeps_status_on_create: has('K'),
        has_generation: has('G'),
        is_custom: false,
        updates_unconditionally: !has('V'),
        creates_on_update: has('C'),
        returns_deleted: has('D'),
        selectable,
        field_style,
        columns: vec![Column {
            name: "Age".into(),
            kind: "string".into(),
            path: ".metadata.creationTimestamp".into(),
            priority: 0,
        }],
    }
}

fn categories(plural: &str) -> Vec<String> {
    let in_all = matches!(
        plural,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "daemonsets"
            | "deployments"
            | "replicasets"
            | "statefulsets"
            | "horizontalpodautoscalers"
            | "cronjobs"
            | "jobs"
    );
    if in_all {
        vec!["all".into()]
    } else {
        Vec::new()
    }
}

/// The fields beside `metadata.name` and `metadata.namespace`, and how an unknown one is refused.
fn selectable(group: &str, plural: &str) -> (Vec<String>, FieldStyle) {
    let (fields, style): (&[&str], FieldStyle) = match (group, plural) {
        ("", "pods") => (
            &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            FieldStyle::Unsupported,
        ),
        ("", "nodes") => (&["spec.unschedulable"], FieldStyle::Unsupported),
        ("", "namespaces") => (&["status.phase"], FieldStyle::Unsupported),
        ("", "secrets") => (&["type"], FieldStyle::Unsupported),
        ("", "services") => (&["spec.clusterIP", "spec.type"], FieldStyle::Unsupported),
        ("", "replicationcontrollers") => (&["status.replicas"], FieldStyle::Unsupported),
        ("apps", "replicasets") => (&["status.replicas"], FieldStyle::Unsupported),
        ("batch", "jobs") => (&["status.successful"], FieldStyle::UnsupportedFor),
        ("", "events") => (
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            FieldStyle::Unsupported,
        ),
        ("certificates.k8s.io", _) => (&["spec.signerName"], FieldStyle::Unsupported),
        _ => (&[], FieldStyle::OnlyMetadata),
    };
    (fields.iter().map(|field| (*field).into()).collect(), style)
}
