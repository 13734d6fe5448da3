//! A weight as a bar of fixed width.

use super::{Line, Style};

/// Cells of a bar.
pub(crate) const CELLS: u32 = 10;

/// Cells filled by `ppm` of the whole. A share above none shows something, one below everything leaves something.
pub(crate) fn bar(ppm: u32, unicode: bool) -> Line {
    // In eighths of a cell, which is what the block elements (U+2588 to U+258F) can show.
    let all = u64::from(CELLS) * 8;
    let eighths = match u64::from(ppm.min(1_000_000)) {
        0 => 0,
        1_000_000 => all,
        ppm => ((ppm * all + 500_000) / 1_000_000).clamp(1, all - 1),
    };
    let (full, part) = ((eighths / 8) as usize, (eighths % 8) as usize);
    let (mut filled, rest) = if unicode {
        let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][part];
        ("█".repeat(full) + part, "·")
    } else {
        ("#".repeat(full) + if part > 0 { "+" } else { "" }, ".")
    };
    let missing = CELLS as usize - filled.chars().count();
    if missing == 0 {
        return Line::plain(filled);
    }
    Line::plain(std::mem::take(&mut filled)).with(Style::Dim, rest.repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_of_one_width_and_honest_at_both_ends() {
        for (ppm, unicode, ascii) in [
            (0, "··········", ".........."),
            (100, "▏·········", "+........."),
            (10_000, "▏·········", "+........."),
            (500_000, "█████·····", "#####....."),
            (560_000, "█████▋····", "#####+...."),
            (999_999, "█████████▉", "#########+"),
            (1_000_000, "██████████", "##########"),
            (u32::MAX, "██████████", "##########"),
        ] {
            assert_eq!((bar(ppm, true).text().as_str(), bar(ppm, false).text().as_str()), (unicode, ascii), "{ppm}");
        }
    }
}
