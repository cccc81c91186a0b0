//! What the server refuses of a list's or watch's options, in its own words, for when it cannot be asked.
//!
//! The rules are those of `ValidateListOptions` in k8s.io/apimachinery, `pkg/apis/meta/internalversion/validation`.

use crate::api::request::{Options, Revision, RevisionMatch, Verb};
use crate::codec::{Cause, Status};

/// Returns the refusal that the server would give.
pub(crate) fn validate(verb: Verb, options: &Options) -> Result<(), Status> {
    if let Revision::Invalid(text) = &options.revision {
        return Err(Status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        )));
    }
    if let Some(text) = &options.not_a_number {
        return Err(Status::bad_request(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        )));
    }
    let causes: Vec<Cause> = [
        match_fault(verb, options),
        initial_events_fault(verb, options),
    ]
    .into_iter()
    .flatten()
    .collect();
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_list_options(causes))
    }
}

fn match_fault(verb: Verb, options: &Options) -> Option<Cause> {
    let revision_match = options.revision_match.as_ref()?;
    let why = match (revision_match, &options.revision) {
        (_, _) if verb == Verb::Watch && options.initial_events.is_none() => {
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        }
        (_, _) if options.continue_token.is_some() => {
            "resourceVersionMatch is forbidden when continue is provided"
        }
        (_, Revision::Unset) if verb == Verb::List => {
            "resourceVersionMatch is forbidden unless resourceVersion is provided"
        }
        (RevisionMatch::Exact, Revision::Zero) => {
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
        }
        (RevisionMatch::Invalid(text), _) => {
            return Some(Cause {
                reason: "FieldValueNotSupported".into(),
                message: format!(
                    "Unsupported value: {text:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                ),
                field: "resourceVersionMatch".into(),
            });
        }
        _ => return None,
    };
    Some(forbidden("resourceVersionMatch", why))
}

fn initial_events_fault(verb: Verb, options: &Options) -> Option<Cause> {
    options.initial_events?;
    let why = match (verb, &options.revision_match) {
        (Verb::List, _) => "sendInitialEvents is forbidden for list",
        (_, Some(RevisionMatch::NotOlderThan)) => return None,
        _ => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    };
    let field = if verb == Verb::List {
        "sendInitialEvents"
    } else {
        "resourceVersionMatch"
    };
    Some(forbidden(field, why))
}

fn forbidden(field: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden".into(),
        message: format!("Forbidden: {why}"),
        field: field.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let options =
            |revision: Revision, revision_match: Option<RevisionMatch>, initial_events| Options {
                revision,
                revision_match,
                initial_events,
                ..Options::default()
            };
        let newer = Some(RevisionMatch::NotOlderThan);
        let exact = Some(RevisionMatch::Exact);
        for (verb, options, code) in [
            (Verb::List, options(Revision::Unset, None, None), 200),
            (
                Verb::List,
                options(Revision::At(7), newer.clone(), None),
                200,
            ),
            (
                Verb::List,
                options(Revision::At(7), exact.clone(), None),
                200,
            ),
            (
                Verb::List,
                options(Revision::Unset, newer.clone(), None),
                422,
            ),
            (Verb::List, options(Revision::Zero, exact, None), 422),
            (
                Verb::List,
                options(
                    Revision::At(7),
                    Some(RevisionMatch::Invalid("x".into())),
                    None,
                ),
                422,
            ),
            (Verb::List, options(Revision::Unset, None, Some(true)), 422),
            (
                Verb::List,
                options(Revision::Invalid("x".into()), None, None),
                400,
            ),
            (
                Verb::Watch,
                options(Revision::Unset, newer.clone(), Some(true)),
                200,
            ),
            (Verb::Watch, options(Revision::Unset, newer, None), 422),
            (Verb::Watch, options(Revision::Unset, None, Some(true)), 422),
            (Verb::Watch, options(Revision::At(7), None, None), 200),
        ] {
            let found =
                validate(verb, &options).map_or_else(|status| status.code.as_u16(), |()| 200);
            assert_eq!(found, code, "{verb:?} {options:?}");
        }
    }
}
