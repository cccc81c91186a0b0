//! In which form a document is asked for, and in which it is: what servers tell apart, and nothing else of a header.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// Clauses of an `Accept` that are looked at.
const CLAUSES: usize = 16;

/// The longest form that is remembered.
const LONGEST: usize = 200;

/// What a client takes, one clause of its `Accept`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Form(String),
    /// Any form whose media type begins so, JSON before others.
    Any(String),
}

/// Returns the form of an answer; `None` if it is none that can be remembered.
pub(super) fn of_answer(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    form(text).filter(|form| form.len() <= LONGEST)
}

/// Returns what a client takes, what it likes best first.
pub(super) fn wanted(headers: &HeaderMap) -> Vec<Wanted> {
    let texts = headers.get_all(ACCEPT).iter();
    let texts: Vec<&str> = texts.filter_map(|text| text.to_str().ok()).collect();
    let clauses = texts.iter().flat_map(|text| text.split(','));
    let mut clauses: Vec<(f32, Wanted)> = clauses
        .filter_map(|clause| Some((weight(clause), clause_of(clause)?)))
        .take(CLAUSES)
        .collect();
    if clauses.is_empty() {
        clauses.push((1.0, Wanted::Any(String::new())));
    }
    // As the server, which keeps the order of those that weigh the same.
    clauses.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    clauses.into_iter().map(|(_, wanted)| wanted).collect()
}

fn clause_of(clause: &str) -> Option<Wanted> {
    let form = form(clause)?;
    Some(match form.strip_suffix("/*") {
        Some("*") => Wanted::Any(String::new()),
        Some(media) => Wanted::Any(format!("{media}/")),
        None => Wanted::Form(form),
    })
}

fn weight(clause: &str) -> f32 {
    let weight = parameters(clause).find(|(name, _)| *name == "q");
    let weight = weight.and_then(|(_, value)| value.parse().ok());
    weight.unwrap_or(1.0)
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split(';').skip(1);
    pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

/// Returns the media type with what Kubernetes tells forms apart by: as what, of which group and version.
fn form(text: &str) -> Option<String> {
    let media = text.split(';').next()?.trim().to_ascii_lowercase();
    // What is asked for as the one comes as the other: `k8s.io/kube-openapi/pkg/handler`.
    let mut form = media.replace("@v1.0+", ".v1.0+");
    for wanted in ["as", "g", "v"] {
        let value = parameters(text).find(|(name, _)| *name == wanted);
        if let Some((name, value)) = value {
            form = format!("{form};{name}={value}");
        }
    }
    (!media.is_empty()).then_some(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn form_of(text: &str) -> Option<String> {
        of_answer(&headers(CONTENT_TYPE, text))
    }

    fn wants(text: &str) -> Vec<Wanted> {
        wanted(&headers(ACCEPT, text))
    }

    #[test]
    fn what_servers_do_not_tell_apart_is_one_form() {
        let json = form_of("application/json");
        assert_eq!(form_of("Application/JSON; charset=utf-8"), json);
        let groups = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let other = "application/json; as=APIGroupDiscoveryList; v=v2; g=apidiscovery.k8s.io; x=1";
        assert_eq!(form_of(groups), form_of(other));
        assert_ne!(form_of(groups), json);
        assert_eq!(
            form_of("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
            form_of("application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        );
        assert_eq!(form_of(""), None);
        assert_eq!(form_of(&"x".repeat(LONGEST + 1)), None);
    }

    #[test]
    fn what_a_client_likes_best_comes_first() {
        let form = |text: &str| Wanted::Form(text.to_owned());
        let any = |text: &str| Wanted::Any(text.to_owned());
        assert_eq!(
            wants("application/yaml;q=0.5, application/json;q=0.9,*/*;q=0.1, text/*;q=0.2"),
            [
                form("application/json"),
                form("application/yaml"),
                any("text/"),
                any("")
            ]
        );
        assert_eq!(
            wants("application/json,application/yaml"),
            [form("application/json"), form("application/yaml")]
        );
        assert_eq!(wanted(&HeaderMap::new()), [any("")]);
        assert_eq!(wants(&"a/b,".repeat(100)).len(), CLAUSES);
    }
}
