//! Each doubt by itself: a node without any, and one fact changed.

use super::*;

fn well() -> Facts {
    let scope = |scope: &str, user| ScopeFact {
        scope: scope.to_owned(),
        user,
        state: live(),
    };
    Facts {
        is_online: true,
        scopes: vec![
            scope("v1/pods where spec.nodeName=n1", User::Kubelet),
            scope("discovery.k8s.io/v1/endpointslices", User::Proxy),
            scope("v1/configmaps", User::Other),
        ],
        pods: Some(2),
        has_proxy: true,
        absent: Vec::new(),
        certificates: vec![CertificateFact {
            certificate: Certificate::Client,
            until: Some(at(100)),
        }],
        tokens: None,
        store: StoreFact {
            disk_bytes: 1,
            free_bytes: Some(1 << 30),
            ..StoreFact::default()
        },
        unjudged: Vec::new(),
    }
}

fn live() -> ScopeState {
    behind(None)
}

fn behind(seconds: Option<u64>) -> ScopeState {
    ScopeState::Synced {
        behind: seconds.map(Duration::from_secs),
        is_suspect: false,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Assesses at second 50; returns the checks that fail.
fn failing(change: impl FnOnce(&mut Facts)) -> Vec<Check> {
    let mut facts = well();
    change(&mut facts);
    let report = assess(&facts, at(50));
    report.with(Outcome::Fails).map(|one| one.check).collect()
}

#[test]
fn a_node_that_has_everything_passes_and_says_until_when() {
    let report = assess(&well(), at(50));
    assert_eq!(report.outcome(), Outcome::Holds, "{report}");
    assert_eq!(report.until, Some(at(100)));
    assert_eq!(Report::default().outcome(), Outcome::Unknown);
}

type Change = fn(&mut Facts);

#[test]
fn every_doubt_has_its_own_word() {
    let table: [(Check, Change); 18] = [
        (Check::KubeletScopes, |f| {
            f.scopes[0].state = ScopeState::Missing
        }),
        (Check::KubeletScopes, |f| {
            f.scopes[0].state = ScopeState::Syncing
        }),
        (Check::KubeletScopes, |f| {
            f.scopes[0].state = ScopeState::Refused
        }),
        (Check::KubeletScopes, |f| {
            f.scopes[0].state = behind(Some(301))
        }),
        (Check::ProxyScopes, |f| {
            f.scopes[1].state = ScopeState::Syncing
        }),
        (Check::ProxyScopes, |f| drop(f.scopes.remove(1))),
        (Check::ClientScopes, |f| {
            f.scopes[2].state = ScopeState::Refused
        }),
        (Check::PodObjects, |f| f.pods = None),
        (Check::PodObjects, |f| f.absent.push(absent("s"))),
        (Check::Verdicts, |f| {
            f.unjudged.push("the node to list pods".into())
        }),
        (Check::Tokens, |f| {
            f.tokens = Some(TokenFact {
                has_keys: false,
                without: None,
            })
        }),
        (Check::Tokens, |f| {
            f.tokens = Some(TokenFact {
                has_keys: true,
                without: Some(1),
            })
        }),
        (Check::ClientCertificate, |f| {
            f.certificates[0].until = Some(at(50))
        }),
        (Check::ClientCertificate, |f| f.certificates[0].until = None),
        (Check::StoreDurable, |f| {
            f.store.refuses = Some(ErrorKind::ReadOnly)
        }),
        (Check::StoreDurable, |f| {
            f.store.unsynced = Duration::from_secs(11)
        }),
        (Check::StoreDurable, |f| f.store.disk_bytes = 0),
        (Check::StoreSpace, |f| f.store.free_bytes = Some(31 << 20)),
    ];
    for (number, (check, change)) in table.into_iter().enumerate() {
        assert_eq!(failing(change), [check], "change {number}");
    }
    let forgets = failing(|f| f.store.forgets = Some(ErrorKind::Other));
    assert_eq!(forgets, [Check::StoreDurable]);
    let suspect = failing(|f| {
        f.store.damaged = 1;
        f.scopes[2].state = ScopeState::Synced {
            behind: None,
            is_suspect: true,
        };
    });
    assert_eq!(suspect, [Check::StoreDamage]);
}

#[test]
fn what_cannot_be_helped_or_does_not_matter_is_no_doubt() {
    let table: [Change; 6] = [
        |f| {
            f.is_online = false;
            f.scopes[0].state = behind(Some(86_400));
        },
        |f| f.scopes[0].state = behind(Some(299)),
        |f| {
            f.has_proxy = false;
            f.scopes.remove(1);
        },
        |f| f.store.damaged = 3,
        |f| f.store.free_bytes = None,
        |f| {
            f.tokens = Some(TokenFact {
                has_keys: true,
                without: None,
            })
        },
    ];
    for (number, change) in table.into_iter().enumerate() {
        assert_eq!(failing(change), [], "change {number}");
    }
}

fn absent(name: &str) -> Absent {
    Absent {
        object: format!("secrets shop/{name}"),
        pod: "shop/web".to_owned(),
    }
}

#[test]
fn the_page_has_a_line_for_each_check_and_names_a_few_of_many() {
    let mut facts = well();
    facts.absent = ["a", "b", "c", "d", "e"].map(absent).into();
    let page = assess(&facts, at(50)).to_string();
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(
        lines[0],
        "[+] KubeletScopes ok: what the kubelet lists before it starts a pod is on the node (1 of 1, live)"
    );
    assert_eq!(
        lines[1],
        "[-] PodObjects failed: not on the node: pod shop/web needs secrets shop/a; pod shop/web needs \
         secrets shop/b; pod shop/web needs secrets shop/c; and 2 more (2 pods)"
    );
    assert_eq!(lines.last(), Some(&"autonomy check failed"));
    assert_eq!(lines.len(), 10, "{page}");
}

#[test]
fn sentences_do_not_change_by_themselves() {
    let sentences = |second| {
        let mut facts = well();
        facts.is_online = false;
        facts.scopes[0].state = behind(Some(second));
        let report = assess(&facts, at(i64::try_from(second).unwrap()));
        let sentences = report.findings.into_iter().map(|one| one.sentence);
        sentences.collect::<Vec<_>>()
    };
    assert_eq!(sentences(10), sentences(70));
}
