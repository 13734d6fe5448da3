//! What becomes of a stage by releases that are marked not reversible.

use crate::core::event::Event;
use crate::core::state::Stage;

impl Stage {
    /// Which releases have started here, and what somebody went back past.
    pub(super) fn evolve_marks(&mut self, event: &Event) {
        match event {
            Event::Promoted { release, starting_until_ms, .. } => {
                // What it does, it does again.
                self.gone_past.retain(|to, highest| !(*to < *release && *release <= *highest));
                if starting_until_ms.is_none() {
                    self.ran.insert(*release);
                }
            }
            // One that an agent started has begun its work, whether it is ever healthy or not.
            Event::Placed { release, .. } | Event::Entered { release, .. } => {
                self.ran.insert(*release);
            }
            Event::MarksPassed { to, marks, .. } => {
                let highest = marks.iter().map(|mark| mark.release).chain(self.gone_past.get(to).copied()).max();
                self.gone_past.extend(highest.map(|highest| (*to, highest)));
            }
            // It leaves before it was stable: what was said for it ends.
            Event::RolledBack { from, .. } if self.stable != Some(*from) => {
                self.gone_past.remove(from);
            }
            Event::PromotionFailed { release, .. }
            | Event::Dropped { release, .. }
            | Event::Replaced { release, .. } => {
                self.gone_past.remove(release);
            }
            _ => {}
        }
    }
}
