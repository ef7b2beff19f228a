//! Classification heads that are compiled in: a linear layer over an encoder's pooled vector.

use serde::Deserialize;

use crate::ModelError;

/// Fitted on movie reviews over gte-small; the file says how, and how well it does.
const GTE_SMALL_SENTIMENT: &str = include_str!("../data/gte-small-sentiment-head.json");

/// A linear layer: `weight @ vector + bias`.
#[derive(Clone, Debug, Deserialize)]
pub struct Head {
    /// One name for each row of `weight`.
    pub labels: Vec<String>,
    weight: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

impl Head {
    /// The head of that name.
    pub fn named(name: &str) -> Result<Head, ModelError> {
        let text = match name {
            "gte-small-sentiment" => GTE_SMALL_SENTIMENT,
            other => return Err(ModelError::Setting(format!("no head is named '{other}'"))),
        };
        let head: Head = serde_json::from_str(text)
            .map_err(|error| ModelError::Setting(format!("head {name}: {error}")))?;
        if head.labels.len() != head.weight.len() || head.bias.len() != head.weight.len() {
            return Err(ModelError::Setting(format!(
                "head {name} is not rectangular"
            )));
        }
        Ok(head)
    }

    /// The logits of a pooled vector.
    pub fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let rows = self.weight.iter().zip(&self.bias);
        rows.map(|(weights, bias)| {
            let products = weights.iter().zip(vector);
            let sum: f64 = products
                .map(|(&weight, &value)| f64::from(weight) * f64::from(value))
                .sum();
            (sum + f64::from(*bias)) as f32
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentiment_head_is_linear_with_its_bias() {
        let head = Head::named("gte-small-sentiment").unwrap();
        assert_eq!(head.labels, ["NEGATIVE", "POSITIVE"]);
        let zero = head.apply(&[0.0; 384]);
        assert_eq!(zero, head.bias);
        let mut unit = [0.0; 384];
        unit[3] = 2.0;
        let expected = head.bias[1] + 2.0 * head.weight[1][3];
        assert!((head.apply(&unit)[1] - expected).abs() < 1e-6);
        assert!(Head::named("no-such-head").is_err());
    }
}
