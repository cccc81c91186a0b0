//! How long and how much is kept, and what is said of it.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use yurt_cache::hub::{Budget, Config};

use super::{check, given::Given};

/// The flags.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub(crate) struct Flags {
    /// How long a mirror stays that nobody asks for and no restart needs [default: 1h]
    #[arg(long, value_name = "TIME")]
    mirror_idle: Option<String>,
    /// How long objects read by name, documents and verdicts stay that nobody uses [default: 7d]
    #[arg(long, value_name = "TIME")]
    forget_after: Option<String>,
    /// What is kept of objects read by name [default: 5000/32Mi]
    #[arg(long, value_name = "NUMBER/BYTES")]
    objects_by_name: Option<String>,
    /// What is kept of discovery and other documents [default: 200/32Mi]
    #[arg(long, value_name = "NUMBER/BYTES")]
    documents: Option<String>,
    /// Verdicts of the cloud on callers that are kept [default: 10000]
    #[arg(long, value_name = "NUMBER")]
    verdicts: Option<String>,
    /// What is kept of each kind [default: 100000/256Mi]
    #[arg(long, value_name = "NUMBER/BYTES")]
    per_kind: Option<String>,
    /// What is kept of one kind, as in events=1000/2Mi; may be repeated
    #[arg(long = "kind", value_name = "KIND=NUMBER/BYTES")]
    kinds: Vec<String>,
    /// How often it is looked whether the node would survive a reboot [default: 30s]
    #[arg(long, value_name = "TIME")]
    autonomy_period: Option<String>,
    /// Whether the Node's condition Autonomy is written: true (default) or false
    #[arg(long, value_name = "BOOLEAN")]
    autonomy_condition: Option<String>,
}

/// The keys of the file and their flags.
pub(super) const KEYS: [(&str, &str); 9] = [
    ("mirrorIdle", "--mirror-idle"),
    ("forgetAfter", "--forget-after"),
    ("objectsByName", "--objects-by-name"),
    ("documents", "--documents"),
    ("verdicts", "--verdicts"),
    ("perKind", "--per-kind"),
    ("kinds", "--kind"),
    ("autonomyPeriod", "--autonomy-period"),
    ("autonomyCondition", "--autonomy-condition"),
];

impl Flags {
    /// Returns what each of the keys was given.
    pub(super) fn texts(self) -> [Vec<String>; KEYS.len()] {
        let one = |flag: Option<String>| flag.into_iter().collect();
        [
            one(self.mirror_idle),
            one(self.forget_after),
            one(self.objects_by_name),
            one(self.documents),
            one(self.verdicts),
            one(self.per_kind),
            self.kinds,
            one(self.autonomy_period),
            one(self.autonomy_condition),
        ]
    }
}

/// A configuration without a mistake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    mirror_idle: Duration,
    forget_after: Duration,
    objects_by_name: Budget,
    documents: Budget,
    verdicts: usize,
    per_kind: Budget,
    kinds: BTreeMap<String, Budget>,
    autonomy_period: Duration,
    autonomy_condition: bool,
}

impl Kept {
    /// Takes the keys; `None` if there is a mistake, which is noted.
    pub(super) fn read(given: &mut Given) -> Option<Self> {
        // Each first, so that every mistake is told.
        let mirror_idle = given.or("mirrorIdle", "1h", check::duration);
        let forget_after = given.or("forgetAfter", "7d", check::duration);
        let objects_by_name = given.or("objectsByName", "5000/32Mi", check::budget);
        let documents = given.or("documents", "200/32Mi", check::budget);
        let verdicts = given.or("verdicts", "10000", check::count);
        let per_kind = given.or("perKind", "100000/256Mi", check::budget);
        let kinds = given.each("kinds", check::kind_budget);
        let autonomy_period = given.or("autonomyPeriod", "30s", check::duration);
        let autonomy_condition = given.or("autonomyCondition", "true", check::boolean);
        Some(Self {
            mirror_idle: mirror_idle?,
            forget_after: forget_after?,
            objects_by_name: objects_by_name?,
            documents: documents?,
            verdicts: verdicts?,
            per_kind: per_kind?,
            kinds: kinds.into_iter().collect(),
            autonomy_period: autonomy_period?,
            autonomy_condition: autonomy_condition?,
        })
    }

    /// Tells the hub.
    pub(crate) fn tell(self, config: &mut Config) {
        config.mirror_idle = self.mirror_idle;
        config.forget_after = self.forget_after;
        config.objects_by_name = self.objects_by_name;
        config.documents = self.documents;
        config.verdicts = self.verdicts;
        config.per_kind = self.per_kind;
        config.kinds = self.kinds;
        config.autonomy_period = self.autonomy_period;
        config.autonomy_condition = self.autonomy_condition;
    }
}
