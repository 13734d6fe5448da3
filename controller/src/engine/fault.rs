//! Fault points for crash tests: the process ends at once, as if the power had gone.

use crate::core::Event;

/// Where to end: a point, and the kind of event that has to be among those in hand.
///
/// Written `after_append:promoted`; without a kind, the first time the point is reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault {
    wanted: Option<(String, Option<String>)>,
}

impl Fault {
    /// From the hidden option of the command.
    pub(crate) fn new(text: Option<String>) -> Self {
        let wanted = text.map(|text| match text.split_once(':') {
            Some((point, kind)) => (point.to_owned(), Some(kind.to_owned())),
            None => (text, None),
        });
        Self { wanted }
    }

    /// Ends the process when this is the point that was asked for.
    pub(crate) fn point(&self, name: &str, events: &[Event]) {
        let Some((point, kind)) = &self.wanted else { return };
        if point == name && kind.as_ref().is_none_or(|kind| events.iter().any(|event| event.kind() == kind)) {
            std::process::abort();
        }
    }
}
