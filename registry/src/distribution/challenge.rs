//! What a registry asks for who it does not know: `WWW-Authenticate`, read (RFC 9110 §11.6.1; distribution's "Token
//! Authentication Specification").

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Longest header that is looked at.
const MOST_BYTES: usize = 8 * 1024;

/// The challenges in a header, in order. What is not understood is left out.
pub(crate) fn read(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    if header.len() > MOST_BYTES {
        return found;
    }
    let mut rest = Text(header);
    loop {
        rest.skip(|byte| byte == b',' || byte.is_ascii_whitespace());
        let scheme = rest.take_token();
        if scheme.is_empty() {
            return found;
        }
        let mut parameters = Vec::new();
        loop {
            let before = rest.0;
            rest.skip(|byte| byte == b',' || byte.is_ascii_whitespace());
            match rest.take_parameter() {
                Some(parameter) => parameters.push(parameter),
                // No `name=value`: the next challenge, or its end.
                None => {
                    rest.0 = before;
                    break;
                }
            }
        }
        found.extend(challenge(scheme, &parameters));
    }
}

fn challenge(scheme: &str, parameters: &[(&str, String)]) -> Option<Challenge> {
    let value = |wanted: &str| {
        parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.clone())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
}

struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    fn skip(&mut self, matching: impl Fn(u8) -> bool) -> &'t str {
        let end = self.0.bytes().position(|byte| !matching(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// RFC 9110 §5.6.2.
    fn take_token(&mut self) -> &'t str {
        self.skip(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    }

    /// `name=value` or `name="value"`.
    fn take_parameter(&mut self) -> Option<(&'t str, String)> {
        let name = self.take_token();
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        self.0 = self.0.strip_prefix('=').filter(|_| !name.is_empty())?;
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        let Some(quoted) = self.0.strip_prefix('"') else {
            let value = self.take_token();
            return (!value.is_empty()).then(|| (name, value.to_owned()));
        };
        let (mut value, mut letters) = (String::new(), quoted.char_indices());
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some((name, value));
                }
                '\\' => value.push(letters.next()?.1),
                letter => value.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        for (header, expected) in [
            (r#"Basic realm="Registry""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://a.io/token",service="b",scope="repository:x/y:pull,push""#,
                vec![bearer("https://a.io/token", Some("b"), Some("repository:x/y:pull,push"))],
            ),
            (r#"BEARER Realm = "r" , service=s"#, vec![bearer("r", Some("s"), None)]),
            (r#"Bearer service="s""#, vec![]),
            (r#"Negotiate, Basic realm="x", Bearer realm="r""#, vec![Challenge::Basic, bearer("r", None, None)]),
            (r#"Bearer realm="a \"b\" c""#, vec![bearer("a \"b\" c", None, None)]),
            (r#"Bearer realm="without end"#, vec![]),
            ("", vec![]),
            (",,, ,", vec![]),
            ("Negotiate dG9rZW4=, Basic", vec![]),
        ] {
            assert_eq!(read(header), expected, "{header}");
        }
        assert!(read(&format!("Basic {}", " ".repeat(MOST_BYTES))).is_empty());
    }

    proptest! {
        #[test]
        fn challenge_never_panics(header in "([A-Za-z]{0,8}|[ ,=\"\\\\]|é|\u{0}){0,40}") {
            let _ = read(&header);
        }

        #[test]
        fn challenge_reads_what_is_quoted(realm in "[^\"\\\\\u{0}]{0,50}") {
            prop_assert_eq!(read(&format!("Bearer realm=\"{realm}\"")), vec![bearer(&realm, None, None)]);
        }
    }
}
