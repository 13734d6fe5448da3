//! Applications and their keys.

use api::operator::{Application, ApplicationClient, ApplicationKey, ApplicationKeyShown, Applications};

use super::{Line, Style, Table, View, ago, times};

/// The applications; never a key, only by what people tell it from others.
pub(crate) fn applications(list: &Applications, view: &View) -> Vec<Line> {
    let mut table = Table::new(&["application", "groups", "keys", "certificates", "clients", "made", "by", ""]);
    for one in &list.applications {
        let keys: Vec<&str> = one.keys.iter().map(|key| key.id.as_str()).collect();
        let clients: Vec<String> = one.clients.iter().map(client).collect();
        table.row(vec![
            Line::of(Style::Bold, &one.name),
            Line::plain(one.groups.join(", ")),
            Line::plain(keys.join(", ")),
            Line::plain(one.certificates.join(", ")),
            Line::plain(clients.join(", ")),
            Line::plain(ago(view, one.created_ms)),
            Line::plain(&one.by),
            if one.revoked { Line::of(Style::Bad, "revoked") } else { Line::default() },
        ]);
    }
    table.lines("no applications yet: `pointsman app create NAME` makes the first")
}

fn client(client: &ApplicationClient) -> String {
    format!("{}={}", client.issuer, client.client_id)
}

/// One application.
pub(crate) fn application(one: &Application, view: &View) -> Vec<Line> {
    let mut title = Line::of(Style::Bold, &one.name);
    if one.revoked {
        title.push(Style::Bad, "  revoked");
    }
    let mut lines = vec![title];
    let clients: Vec<String> = one.clients.iter().map(client).collect();
    let mut values = vec![
        ("groups", one.groups.join(", ")),
        ("certificates", one.certificates.join(", ")),
        ("clients", clients.join(", ")),
        ("made", format!("{} by {}", ago(view, one.created_ms), one.by)),
    ];
    values.extend(one.keys.iter().map(|key| ("key", shown(key, view))));
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        lines.push(Line::of(Style::Dim, format!("  {name:<12} ")).with(Style::Plain, value));
    }
    lines
}

fn shown(key: &ApplicationKeyShown, view: &View) -> String {
    let until = until(key.until_ms, view);
    format!("pm_{}_...  made {}, counts {until}", key.id, ago(view, key.created_ms))
}

fn until(until_ms: u64, view: &View) -> String {
    if until_ms == 0 { "without an end".to_owned() } else { times::until(view, until_ms) }
}

/// What is said beside a key that was made.
pub(crate) fn key_made(name: &str, made: &ApplicationKey, view: &View) -> Vec<Line> {
    if made.key.is_empty() {
        return vec![Line::of(Style::Dim, format!("application {name}, without a key"))];
    }
    let counts = until(made.until_ms, view);
    let mut lines = vec![Line::of(Style::Dim, format!("key of {name}, which counts {counts}, shown once:"))];
    if made.before_until_ms > 0 {
        lines.push(Line::of(Style::Dim, format!("the one before counts {}", until(made.before_until_ms, view))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_shown_without_their_keys() {
        let view = View::of_tests();
        let key = ApplicationKeyShown { id: "abcdefgh".into(), created_ms: 0, until_ms: 0 };
        let one = Application {
            name: "batch".into(),
            groups: vec!["partners".into()],
            keys: vec![key],
            by: "anna".into(),
            clients: vec![ApplicationClient { issuer: "corp".into(), client_id: "abc".into() }],
            ..Application::default()
        };
        let revoked = Application { name: "old".into(), revoked: true, ..Application::default() };
        let list = Applications { applications: vec![one.clone(), revoked] };
        let listed = super::super::plain(&applications(&list, &view));
        for expected in ["batch", "partners", "abcdefgh", "corp=abc", "anna", "revoked"] {
            assert!(listed.contains(expected), "{expected}: {listed}");
        }
        let shown = super::super::plain(&application(&one, &view));
        assert!(shown.contains("pm_abcdefgh_...") && shown.contains("without an end"), "{shown}");
        let made = ApplicationKey { key: "pm_x".into(), before_until_ms: 1, ..ApplicationKey::default() };
        let said = super::super::plain(&key_made("batch", &made, &view));
        assert!(said.contains("shown once") && said.contains("the one before counts until"), "{said}");
        assert!(!said.contains("pm_x"), "the key itself goes to stdout, alone");
    }
}
