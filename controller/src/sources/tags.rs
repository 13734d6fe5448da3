//! Which tags of a repository are released (pure): those of one form, in the order in which they were meant.
//!
//! Must not know: git, or which tags there are.

use std::cmp::Ordering;

use jiff::civil::Date;
use semver::Version;

use crate::files::check_reference;

/// What a tag looks like: text, one of three words, text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagForm {
    before: String,
    word: Word,
    after: String,
    /// `before` may be missing.
    is_default: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Semver,
    Date,
    Number,
}

/// What stands in place of the word: tags of one form are ordered by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TagValue {
    /// <https://semver.org>, 2.0.0, without metadata of the build: two that differ in nothing else are neither before the other.
    Semver(Version),
    /// A day.
    Date(Date),
    /// A number.
    Number(u64),
}

impl Word {
    const ALL: [(&str, Self); 3] = [("{semver}", Self::Semver), ("{date}", Self::Date), ("{number}", Self::Number)];

    fn read(self, text: &str) -> Option<TagValue> {
        match self {
            Self::Semver => {
                let version = Version::parse(text).ok().filter(|version| version.build.is_empty())?;
                Some(TagValue::Semver(version))
            }
            Self::Date => {
                let digits = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
                let whole = match text.split('-').collect::<Vec<_>>()[..] {
                    [whole] => whole.to_owned(),
                    [year, month, day] if (year.len(), month.len()) == (4, 2) => format!("{year}{month}{day}"),
                    _ => return None,
                };
                if !digits(&whole) {
                    return None;
                }
                let number = |range: std::ops::Range<usize>| whole[range].parse().ok();
                let month = number(4..6).and_then(|month: i16| i8::try_from(month).ok())?;
                let day = number(6..8).and_then(|day: i16| i8::try_from(day).ok())?;
                Some(TagValue::Date(Date::new(number(0..4)?, month, day).ok()?))
            }
            Self::Number => {
                let plain = text == "0" || !text.starts_with('0');
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                text.parse().ok().filter(|_| plain && digits).map(TagValue::Number)
            }
        }
    }
}

impl TagForm {
    /// Reads a form such as `v{semver}` or `RELEASE_{date}`; none: semver, with or without a `v` before it.
    ///
    /// # Errors
    /// A sentence with the accepted forms.
    pub(crate) fn read(form: Option<&str>) -> Result<Self, String> {
        let Some(form) = form else {
            return Ok(Self { before: "v".into(), word: Word::Semver, after: String::new(), is_default: true });
        };
        let shown: String = form.chars().filter(|c| !c.is_control()).take(64).collect();
        let wrong = || {
            format!(
                "\"{shown}\" is not the form of a tag: accepted is exactly one of {{semver}}, {{date}} and {{number}} with \
                 text around it, such as \"v{{semver}}\" or \"RELEASE_{{date}}\""
            )
        };
        let mut found = Word::ALL.into_iter().filter_map(|(name, word)| Some((form.split_once(name)?, word)));
        let ((before, after), word) = found.next().filter(|_| form.len() <= 100).ok_or_else(wrong)?;
        let is_plain = [before, after].iter().all(|text| !text.contains(['{', '}']));
        if found.next().is_some() || !is_plain || check_reference(&format!("{before}1{after}")).is_err() {
            return Err(wrong());
        }
        Ok(Self { before: before.into(), word, after: after.into(), is_default: false })
    }

    /// What a tag of this form says; none: it is of another.
    pub(crate) fn value(&self, tag: &str) -> Option<TagValue> {
        let rest = tag.strip_prefix(&self.before).or_else(|| self.is_default.then_some(tag))?;
        self.word.read(rest.strip_suffix(&self.after)?)
    }

    /// The order in which two tags are released; those of another form come first.
    pub(crate) fn order(&self, one: &str, other: &str) -> Ordering {
        self.value(one).cmp(&self.value(other)).then_with(|| one.cmp(other))
    }
}

impl std::fmt::Display for TagForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Word::ALL.iter().find(|(_, word)| *word == self.word).map_or("", |(name, _)| name);
        let optional = if self.is_default { "[v]" } else { self.before.as_str() };
        write!(f, "{optional}{name}{}", self.after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_told_by_their_form() {
        for (form, good, bad) in [
            (
                None,
                &["v1.2.3", "1.2.3", "v0.1.0-rc.1"][..],
                &["v1.2", "v1.2.3+build", "1.2.3.4", "vv1.2.3", "v01.2.3", "", "v", "release-1.2.3"][..],
            ),
            (Some("v{semver}"), &["v1.2.3", "v10.0.0-alpha"], &["1.2.3", "v1.2.3 ", "v1.2.3\n", "V1.2.3"]),
            (
                Some("RELEASE_{date}"),
                &["RELEASE_20280229", "RELEASE_2026-12-31"],
                &[
                    "RELEASE_20260229",
                    "RELEASE_2026-2-28",
                    "RELEASE_202602280",
                    "RELEASE_",
                    "RELEASE_2026-0228",
                    "RELEASE_+2260101",
                ],
            ),
            (Some("web/{number}-final"), &["web/7-final", "web/0-final"], &["web/07-final", "web/-1-final", "web/7"]),
            (Some("{number}"), &["18446744073709551615"], &["18446744073709551616", "+1", "1e3", "٣"]),
        ] {
            let form = TagForm::read(form).expect("a form");
            good.iter().for_each(|tag| assert!(form.value(tag).is_some(), "{form}: {tag}"));
            bad.iter().for_each(|tag| assert!(form.value(tag).is_none(), "{form}: {tag}"));
        }
    }

    #[test]
    fn tags_are_released_in_the_order_in_which_they_were_meant() {
        for (form, ordered) in [
            (None, &["other", "1.2.9-rc.2", "v1.2.9", "1.2.10", "v2.0.0-alpha", "2.0.0"][..]),
            (Some("r{date}"), &["r20251231", "r2026-01-01", "r20260102"]),
            (Some("b{number}"), &["b2", "b10", "b100"]),
        ] {
            let form = TagForm::read(form).expect("a form");
            let mut tags: Vec<_> = ordered.iter().rev().copied().collect();
            tags.sort_by(|one, other| form.order(one, other));
            assert_eq!(tags, ordered, "{form}");
        }
    }

    #[test]
    fn hostile_h83_what_is_no_form_is_refused() {
        let long = format!("{}{{semver}}", "v".repeat(100));
        let forms =
            ["", "v1", "{semver}{date}", "{semver}{semver}", "{version}", "v{semver", "v {semver}", "-{semver}"];
        for form in forms.into_iter().chain(["../{date}", "{date}.lock", "{number}~1", "a\u{1b}{date}", &long]) {
            let problem = TagForm::read(Some(form)).expect_err(form);
            assert!(problem.contains("accepted is exactly one of") && !problem.contains('\u{1b}'), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_of_any_bytes_is_no_panic(tag in "\\PC{0,40}", form in 0..4usize) {
            let form = [None, Some("v{semver}"), Some("{date}"), Some("{number}")][form];
            let _ = TagForm::read(form).expect("a form").value(&tag);
            let _ = TagForm::read(Some(&tag));
        }
    }
}
