//! Which form of answer a caller of the control API wants.

/// The form of an answer that reports success. Errors are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `application/json`.
    Json,
    /// `text/plain`, which is sent to a caller who states no wish.
    Text,
}

/// The form that `Accept` fields ask for; none if they name no form there is. As publishers know it, quality values are
/// not looked at: of several known types the last one counts.
pub(crate) fn form<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Option<Form> {
    let mut wanted = None;
    let mut stated = false;
    for value in accept {
        stated = true;
        for media_range in value.split(|byte| *byte == b',') {
            let name = media_range.split(|byte| *byte == b';').next().unwrap_or_default();
            wanted = known(name.trim_ascii()).or(wanted);
        }
    }
    if stated { wanted } else { Some(Form::Text) }
}

fn known(name: &[u8]) -> Option<Form> {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    if ["*/*", "text/plain", "text/*", "*"].into_iter().any(is) {
        Some(Form::Text)
    } else if ["application/json", "application/*"].into_iter().any(is) {
        Some(Form::Json)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_known_type_counts_and_none_means_text() {
        let check = |accept: &[&str], expected: Option<Form>| {
            assert_eq!(form(accept.iter().map(|value| value.as_bytes())), expected, "{accept:?}");
        };
        check(&[], Some(Form::Text));
        for text in ["text/plain", "text/*", "*/*", "*", "TEXT/Plain", "text/plain;q=0.1", "image/png, */*", "*/*,x"] {
            check(&[text], Some(Form::Text));
        }
        for json in ["application/json", "application/*", "application/json; charset=utf-8", "*/*,application/json"] {
            check(&[json], Some(Form::Json));
        }
        check(&["application/json", "text/plain"], Some(Form::Text));
        check(&["text/plain,application/json"], Some(Form::Json));
        for none in ["", ",", "text/html", "application/jsonx", ";", "image/*"] {
            check(&[none], None);
        }
    }
}
