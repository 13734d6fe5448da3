//! The file of cases. Its head says how it is written; a mistake in it is a panic that names the case.

/// One case.
#[derive(Debug)]
pub(super) struct Case<'a> {
    /// With its kind: the first line.
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
    /// What is expected of each side.
    pub(super) ours: String,
    pub(super) library: String,
    /// What they see differently in messages that both take.
    pub(super) differ: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Request,
    /// `head_only`: to HEAD.
    Response {
        head_only: bool,
    },
}

/// Reads the file.
pub(super) fn read(text: &str) -> Vec<Case<'_>> {
    fn lines(block: &str) -> impl Iterator<Item = &str> {
        block.lines().filter(|line| !line.starts_with('#'))
    }
    let blocks = text.split("\n\n").filter(|block| lines(block).next().is_some());
    let cases: Vec<Case<'_>> = blocks.map(|block| case(lines(block))).collect();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.windows(2).for_each(|two| assert_ne!(two[0], two[1], "stands twice"));
    cases
}

fn case<'a>(mut lines: impl Iterator<Item = &'a str>) -> Case<'a> {
    let name = lines.next().expect("a block has lines");
    let kind = match name.split(' ').next().unwrap_or_default() {
        "request" => Kind::Request,
        "response" => Kind::Response { head_only: false },
        "response-to-head" => Kind::Response { head_only: true },
        _ => panic!("{name}: no kind"),
    };
    let (mut bytes, mut keys) = (Vec::new(), std::collections::HashMap::new());
    for line in lines {
        if let Some(text) = line.strip_prefix("> ") {
            bytes.extend(unescaped(text));
        } else {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(keys.insert(key, value).is_none(), "{name}: {key} stands twice");
        }
    }
    let mut take = |key: &str| keys.remove(key);
    let both = take("both");
    let mut side = |key| take(key).or(both).unwrap_or_else(|| panic!("{name}: no {key}")).to_owned();
    let (ours, library) = (side("ours"), side("hyper"));
    let differ: Vec<&str> = take("differ").map(|parts| parts.split(", ").collect()).unwrap_or_default();
    let why = take("why");
    assert_eq!(ours == library, both.is_some(), "{name}: `both` or one line for each");
    assert_eq!(
        ours != library || !differ.is_empty(),
        why.is_some(),
        "{name}: a difference needs a reason, and only it"
    );
    assert!(why.is_none_or(|why| why.ends_with('.')), "{name}: a reason is a sentence");
    assert!(keys.is_empty(), "{name}: {keys:?}");
    Case { name, kind, bytes, ours, library, differ }
}

/// `\r`, `\n`, `\t`, `\\`, `\xNN` and `{COUNT TEXT}`.
fn unescaped(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(first) = text.chars().next() {
        let rest = &text[first.len_utf8()..];
        text = match first {
            '{' => {
                let (repeated, rest) = rest.split_once('}').expect("a closing brace");
                let (count, what) = repeated.split_once(' ').expect("{COUNT TEXT}");
                bytes.extend(unescaped(what).repeat(count.parse().expect("a count")));
                rest
            }
            '\\' => {
                let length = if rest.starts_with('x') { 3 } else { 1 };
                bytes.push(match &rest[..length] {
                    "r" => b'\r',
                    "n" => b'\n',
                    "t" => b'\t',
                    "\\" => b'\\',
                    code => u8::from_str_radix(&code[1..], 16).expect("\\xNN"),
                });
                &rest[length..]
            }
            plain => {
                assert!(plain.is_ascii(), "{plain} has to be escaped");
                bytes.push(plain as u8);
                rest
            }
        };
    }
    bytes
}
