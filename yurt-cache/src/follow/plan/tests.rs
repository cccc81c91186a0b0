use super::*;

const LIST: Step = Step::List(ListAt::Latest);
const OLD_LIST: Step = Step::List(ListAt::Exactly(7));
const AT_ONCE: Duration = Duration::ZERO;

/// A mirror that has been followed for a while without a failure.
fn good(step: Step, ended: Ended) -> Situation {
    Situation {
        last: Some((step, ended)),
        first: ListAt::Latest,
        is_synced: true,
        is_suspect: false,
        was_watched: true,
        has_lasted: false,
        is_fresh: true,
        missing_for: Duration::ZERO,
    }
}

/// A mirror that has nothing yet.
fn new(step: Step, ended: Ended) -> Situation {
    Situation {
        is_synced: false,
        was_watched: false,
        ..good(step, ended)
    }
}

#[test]
fn a_mirror_begins_with_a_list_and_resumes_with_a_watch() {
    let begun = |is_synced, is_suspect, first| Situation {
        last: None,
        is_synced,
        is_suspect,
        first,
        ..good(LIST, Ended::Well)
    };
    for (situation, expected) in [
        (begun(false, false, ListAt::Latest), LIST),
        (begun(false, false, ListAt::Exactly(7)), OLD_LIST),
        (begun(true, false, ListAt::Latest), Step::Watch),
        (begun(true, true, ListAt::Latest), LIST),
    ] {
        assert_eq!(next(&situation), Next::Now(expected), "{situation:?}");
    }
}

#[test]
fn a_watch_follows_a_list_and_one_that_lasted_follows_itself() {
    let lasted = Situation {
        has_lasted: true,
        ..good(Step::Watch, Ended::Well)
    };
    for (situation, expected) in [
        (new(LIST, Ended::Well), Next::Now(Step::Watch)),
        (good(Step::WatchList, Ended::Well), Next::Now(Step::Watch)),
        (lasted, Next::Now(Step::Watch)),
        (
            good(Step::Watch, Ended::Well),
            Next::After(Step::Watch, AT_ONCE),
        ),
        (
            good(Step::Watch, Ended::Lost),
            Next::After(Step::Watch, AT_ONCE),
        ),
        (
            good(Step::Watch, Ended::Unproven),
            Next::After(Step::Watch, AT_ONCE),
        ),
    ] {
        assert_eq!(next(&situation), expected, "{situation:?}");
    }
}

#[test]
fn what_cannot_be_resumed_is_listed_again() {
    let tired = |step, ended| Situation {
        is_fresh: false,
        ..good(step, ended)
    };
    for (situation, expected) in [
        (good(Step::Watch, Ended::Expired), Next::Now(LIST)),
        (
            tired(Step::Watch, Ended::Expired),
            Next::After(LIST, AT_ONCE),
        ),
        (new(OLD_LIST, Ended::Expired), Next::Now(LIST)),
        (good(LIST, Ended::Expired), Next::Now(Step::WatchList)),
        (tired(LIST, Ended::Expired), Next::Now(Step::WatchList)),
        (good(Step::WatchList, Ended::Expired), Next::Now(LIST)),
        (good(Step::Watch, Ended::Malformed), Next::Now(LIST)),
        (
            tired(Step::Watch, Ended::Malformed),
            Next::After(LIST, AT_ONCE),
        ),
        (tired(Step::Watch, Ended::WentBack), Next::Now(LIST)),
        (good(Step::Watch, Ended::Suspect), Next::Now(LIST)),
        (tired(LIST, Ended::WentBack), Next::After(LIST, AT_ONCE)),
        (tired(LIST, Ended::Suspect), Next::After(LIST, AT_ONCE)),
        (good(LIST, Ended::Lost), Next::Now(LIST)),
        (tired(LIST, Ended::Failed), Next::After(LIST, AT_ONCE)),
    ] {
        assert_eq!(next(&situation), expected, "{situation:?}");
    }
}

#[test]
fn a_synced_mirror_is_given_up_only_when_its_resource_was_missing_for_minutes() {
    let missing = |step, seconds| Situation {
        missing_for: Duration::from_secs(seconds),
        ..good(step, Ended::Missing)
    };
    let gone = Next::Give(Up::Refused);
    for (situation, expected) in [
        (missing(Step::Watch, 0), Next::After(Step::Watch, AT_ONCE)),
        (missing(Step::Watch, 179), Next::After(Step::Watch, AT_ONCE)),
        (missing(Step::Watch, 180), gone),
        (missing(LIST, 10), Next::After(LIST, AT_ONCE)),
        (missing(Step::WatchList, 10), Next::After(LIST, AT_ONCE)),
        (new(LIST, Ended::Missing), gone),
        (new(LIST, Ended::Forbidden), gone),
        (new(LIST, Ended::Refused { is_lasting: true }), gone),
        (
            new(LIST, Ended::Refused { is_lasting: false }),
            Next::After(LIST, AT_ONCE),
        ),
        (
            good(Step::Watch, Ended::Forbidden),
            Next::WhenAsked(Step::Watch),
        ),
        (
            good(Step::Watch, Ended::Refused { is_lasting: true }),
            Next::After(Step::Watch, AT_ONCE),
        ),
    ] {
        assert_eq!(next(&situation), expected, "{situation:?}");
    }
}

#[test]
fn what_can_never_be_followed_is_given_up_at_once() {
    let listed = |ended| Situation {
        was_watched: false,
        ..good(Step::Watch, ended)
    };
    let never = Next::Give(Up::Unfollowable);
    for (situation, expected) in [
        (listed(Ended::Unsupported), never),
        (new(LIST, Ended::Unsupported), never),
        (new(LIST, Ended::Unnumbered), never),
        (good(Step::Watch, Ended::Unnumbered), never),
        (
            good(Step::Watch, Ended::Unsupported),
            Next::After(Step::Watch, AT_ONCE),
        ),
        (listed(Ended::Missing), Next::After(Step::Watch, AT_ONCE)),
        (new(LIST, Ended::OverBudget), Next::Give(Up::OverBudget)),
    ] {
        assert_eq!(next(&situation), expected, "{situation:?}");
    }
}

#[test]
fn a_busy_server_is_left_alone_for_as_long_as_it_says_and_no_longer_than_two_minutes() {
    for (asked, waits) in [(0, 0), (30, 30), (86_400, 120)] {
        let busy = Ended::Busy(Duration::from_secs(asked));
        let expected = Next::After(LIST, Duration::from_secs(waits));
        assert_eq!(next(&new(LIST, busy)), expected);
    }
}
