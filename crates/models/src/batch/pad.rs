//! Rows of unlike length made into rectangular tensors.

/// One tokenized input.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Vocabulary ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token; empty when all are 0.
    pub types: Vec<u8>,
}

/// A batch as the runtime wants it, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// Number of rows.
    pub rows: usize,
    /// Length of each row.
    pub len: usize,
    /// Ids, padded with the model's padding id.
    pub ids: Vec<i64>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i64>,
    /// Segments.
    pub types: Vec<i64>,
    /// 0, 1, 2, ... in each row.
    pub positions: Vec<i64>,
}

impl Padded {
    /// Pads `rows` on the right to the longest of them.
    pub fn new<'a>(rows: impl ExactSizeIterator<Item = &'a Tokens> + Clone, pad_id: u32) -> Padded {
        let count = rows.len();
        let len = rows.clone().map(|row| row.ids.len()).max().unwrap_or(0);
        let cells = count * len;
        let mut padded = Padded {
            rows: count,
            len,
            ids: vec![i64::from(pad_id); cells],
            mask: vec![0; cells],
            types: vec![0; cells],
            positions: (0..cells).map(|cell| (cell % len.max(1)) as i64).collect(),
        };
        for (index, row) in rows.enumerate() {
            let start = index * len;
            for (at, &id) in row.ids.iter().enumerate() {
                padded.ids[start + at] = i64::from(id);
                padded.mask[start + at] = 1;
            }
            for (at, &segment) in row.types.iter().enumerate().take(len) {
                padded.types[start + at] = i64::from(segment);
            }
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rows_are_padded_on_the_right_and_masked() {
        let rows = [
            Tokens {
                ids: vec![5, 6, 7],
                types: vec![0, 0, 1],
            },
            Tokens {
                ids: vec![8],
                types: Vec::new(),
            },
        ];
        let padded = Padded::new(rows.iter(), 1);
        assert_eq!((padded.rows, padded.len), (2, 3));
        assert_eq!(padded.ids, [5, 6, 7, 8, 1, 1]);
        assert_eq!(padded.mask, [1, 1, 1, 1, 0, 0]);
        assert_eq!(padded.types, [0, 0, 1, 0, 0, 0]);
        assert_eq!(padded.positions, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn no_rows_make_an_empty_batch() {
        assert_eq!(Padded::new([].iter(), 0).ids, Vec::<i64>::new());
    }
}
