//! `WWW-Authenticate` as registries send it (RFC 9110, 11.6.1; Docker token specification).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// The credentials themselves.
    Basic,
}

impl Challenge {
    /// The challenge to meet among those sent: Bearer before Basic.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Challenge> {
        let all: Vec<Challenge> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).flat_map(parse).collect();
        let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. })).cloned();
        bearer.or_else(|| all.into_iter().next())
    }
}

/// One header may hold several challenges: `scheme k="v",k=v, scheme …`.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find(['=', ' ', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let is_parameter = after.starts_with('=') && !found.is_empty();
        if is_parameter {
            let value = after[1..].trim_start_matches([' ', '\t']);
            let (value, left) = match value.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => {
                    let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                    (value[..end].to_owned(), &value[end..])
                }
            };
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = left;
        } else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            // A `token68` value after the scheme (Negotiate and its kin) is no parameter of ours.
            rest = after.trim_start_matches('=');
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()).filter(|v| !v.is_empty());
    match scheme {
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") }),
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

/// The text up to the closing quote, backslashes resolved, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &text[at + 1..]),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            _ => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn forms_seen_in_the_wild() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"))]
        );
        assert_eq!(parse(r#"bearer realm=https://h/t, service="h""#), [bearer("https://h/t", Some("h"), None)]);
        assert_eq!(
            parse(r#"Basic realm="x, y", Bearer realm="https://h/t""#),
            [Challenge::Basic, bearer("https://h/t", None, None)]
        );
        assert_eq!(parse("Negotiate abc=="), []);
        assert_eq!(parse(r#"Bearer service="no realm""#), []);
    }

    #[test]
    fn junk_ends() {
        for junk in ["", "=", ",,,", "Bearer", "Bearer realm=\"", "\"\"\"", "a=b=c==d", "Bearer realm=\"\\"] {
            let _ = parse(junk);
        }
    }
}
