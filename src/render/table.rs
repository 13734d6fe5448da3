//! Small aligned tables without borders: lower-case headers, two blanks between columns.

use super::{Line, Style};

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

#[derive(Debug, Clone)]
struct Column {
    head: &'static str,
    align: Align,
    /// Least width: keeps columns in place while their numbers change.
    least: usize,
}

#[derive(Debug, Clone)]
enum Row {
    /// Cells, and what follows them without belonging to a column.
    Cells(Vec<Line>, Line),
    /// Not bound to columns.
    Whole(Line),
}

/// A table that is being filled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

const GAP: usize = 2;

impl Table {
    /// With left-aligned columns of these headers.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        let mut table = Self::default();
        heads.iter().for_each(|head| table.column(head, Align::Left, 0));
        table
    }

    /// Adds a column of a least width.
    pub(crate) fn column(&mut self, head: &'static str, align: Align, least: usize) {
        self.columns.push(Column { head, align, least });
    }

    /// The table with the columns at these places right-aligned.
    pub(crate) fn right(mut self, places: &[usize]) -> Self {
        for place in places {
            self.columns[*place].align = Align::Right;
        }
        self
    }

    /// Adds a row; missing cells at its end are empty.
    pub(crate) fn row(&mut self, cells: Vec<Line>) {
        self.row_with_tail(cells, Line::default());
    }

    /// Adds a row that goes on after its last cell.
    pub(crate) fn row_with_tail(&mut self, cells: Vec<Line>, tail: Line) {
        debug_assert!(cells.len() <= self.columns.len(), "a cell for each column at most");
        self.rows.push(Row::Cells(cells, tail));
    }

    /// Adds a row of plain texts.
    pub(crate) fn plain(&mut self, cells: &[&str]) {
        self.row(cells.iter().map(Line::plain).collect());
    }

    /// Adds a line that is not bound to the columns.
    pub(crate) fn whole(&mut self, line: Line) {
        self.rows.push(Row::Whole(line));
    }

    /// The header and the rows, or `empty` when there is no row.
    pub(crate) fn lines(self, empty: &str) -> Vec<Line> {
        if self.rows.is_empty() {
            return vec![Line::of(Style::Dim, empty)];
        }
        let (head, rows) = self.parts();
        std::iter::once(head).chain(rows).collect()
    }

    /// The header and the rows apart.
    pub(crate) fn parts(self) -> (Line, Vec<Line>) {
        let widths = self.widths();
        let head: Vec<Line> = self.columns.iter().map(|column| Line::of(Style::Dim, column.head)).collect();
        let head = aligned(&self.columns, &widths, head, Line::default());
        let rows = self.rows.into_iter().map(|row| match row {
            Row::Cells(cells, tail) => aligned(&self.columns, &widths, cells, tail),
            Row::Whole(line) => line,
        });
        (head, rows.collect())
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.columns.iter().map(|column| column.head.chars().count().max(column.least)).collect();
        for row in &self.rows {
            if let Row::Cells(cells, _) = row {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.width());
                }
            }
        }
        widths
    }
}

/// Cells side by side; blanks are written only before a cell that follows, so lines have no blanks at their end.
fn aligned(columns: &[Column], widths: &[usize], cells: Vec<Line>, tail: Line) -> Line {
    let (mut line, mut owed) = (Line::default(), 0);
    for (place, cell) in cells.into_iter().enumerate() {
        let rest = widths[place] - cell.width();
        let (before, after) = if columns[place].align == Align::Right { (rest, 0) } else { (0, rest) };
        if cell.is_empty() {
            owed += rest + GAP;
            continue;
        }
        line.push(Style::Plain, " ".repeat(owed + before));
        line.append(cell);
        owed = after + GAP;
    }
    if !tail.is_empty() {
        line.push(Style::Plain, " ".repeat(owed));
        line.append(tail);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(&["name", "count", "note"]).right(&[1]);
        table.plain(&["hello", "12,340", "fine"]);
        table.plain(&["grüße", "7"]);
        table.whole(Line::plain("a line that is longer than any of the columns"));
        table.plain(&["", "", "alone"]);
        table.row_with_tail(vec![Line::plain("short")], Line::plain("goes on"));
        let expected = "\
name    count  note
hello  12,340  fine
grüße       7
a line that is longer than any of the columns
               alone
short  goes on
";
        assert_eq!(plain(&table.lines("none")), expected);
    }

    #[test]
    fn hostile_cells_stay_in_their_row() {
        let mut table = Table::new(&["subject", "by"]);
        table.plain(&["fix\n\x1b[1A\x1b[2Kgone", "anna"]);
        let lines = table.lines("none");
        assert_eq!(plain(&lines[1..]), "fix\\n\\u{1b}[1A\\u{1b}[2Kgone  anna\n");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(plain(&Table::new(&["a"]).lines("no releases yet")), "no releases yet\n");
    }
}
