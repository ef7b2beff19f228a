//! From token vectors to one vector: pooling and scaling. Pure.

use serde::Deserialize;

/// How token vectors become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens that are not padding.
    Mean,
    /// The first token's vector.
    Cls,
    /// The last token's vector.
    LastToken,
    /// The largest value of each dimension.
    Max,
}

impl Pooling {
    /// The name that `/info` and configuration use.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::LastToken => "last_token",
            Pooling::Max => "max",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Pooling> {
        let all = [
            Pooling::Mean,
            Pooling::Cls,
            Pooling::LastToken,
            Pooling::Max,
        ];
        all.into_iter().find(|pooling| pooling.name() == name)
    }

    /// Pools the first `len` tokens of a row. `hidden` is the row, `width` the vectors' length.
    pub fn apply(self, hidden: &[f32], width: usize, len: usize) -> Vec<f32> {
        let len = len.clamp(1, (hidden.len() / width.max(1)).max(1));
        let token = |at: usize| hidden[at * width..(at + 1) * width].to_vec();
        match self {
            Pooling::Cls => token(0),
            Pooling::LastToken => token(len - 1),
            Pooling::Mean => {
                // Summed in 64 bits: long rows would lose digits otherwise.
                let mut sums = vec![0_f64; width];
                for row in hidden.chunks_exact(width).take(len) {
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += f64::from(value);
                    }
                }
                sums.into_iter()
                    .map(|sum| (sum / len as f64) as f32)
                    .collect()
            }
            Pooling::Max => {
                let mut best = token(0);
                for row in hidden.chunks_exact(width).take(len).skip(1) {
                    for (best, &value) in best.iter_mut().zip(row) {
                        *best = best.max(value);
                    }
                }
                best
            }
        }
    }
}

/// Scales a vector to length 1; a vector of zeros stays one.
pub fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|&value| f64::from(value).powi(2)).sum();
    let length = square.sqrt();
    if length > 0.0 {
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

/// Probabilities that sum to 1.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from(logit - largest).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights
        .into_iter()
        .map(|weight| (weight / sum) as f32)
        .collect()
}

/// A probability of its own.
pub fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_pooling_reads_only_the_tokens_before_the_padding() {
        let hidden = [1.0, 2.0, 3.0, 6.0, 99.0, 99.0];
        for (pooling, expected) in [
            (Pooling::Mean, [2.0, 4.0]),
            (Pooling::Cls, [1.0, 2.0]),
            (Pooling::LastToken, [3.0, 6.0]),
            (Pooling::Max, [3.0, 6.0]),
        ] {
            assert_eq!(pooling.apply(&hidden, 2, 2), expected, "{pooling:?}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut zeros = [0.0; 4];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 4]);
    }

    proptest! {
        #[test]
        fn a_normalized_vector_has_length_one(
            mut vector in proptest::collection::vec(-1e3_f32..1e3, 1..400),
        ) {
            prop_assume!(vector.iter().any(|value| value.abs() > 1e-3));
            normalize(&mut vector);
            let square: f64 = vector.iter().map(|&v| f64::from(v).powi(2)).sum();
            prop_assert!((square - 1.0).abs() < 1e-4);
        }

        #[test]
        fn softmax_sums_to_one_and_keeps_the_order(
            logits in proptest::collection::vec(-50_f32..50.0, 1..20),
        ) {
            let scores = softmax(&logits);
            prop_assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            for a in 0..logits.len() {
                for b in 0..logits.len() {
                    prop_assert!(logits[a] > logits[b] || scores[a] <= scores[b]);
                }
            }
        }
    }
}
