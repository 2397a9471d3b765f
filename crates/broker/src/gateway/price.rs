//! What the gateway asks about prices.

use tipstaff_model::{MicroUsd, Usage};

/// Who knows what tokens cost.
pub trait Pricer: Send + Sync {
    /// What `usage` of `model` costs, and whether the model is unknown, so that the cost is the dearest known price of
    /// the provider. Must not fall when a count rises.
    fn cost(&self, provider: &str, model: &str, usage: &Usage) -> (MicroUsd, bool);

    /// The most tokens that the model may be sent, where it is known.
    fn most_input(&self, _provider: &str, _model: &str) -> Option<u64> {
        None
    }

    /// The most tokens that the model may answer with, where it is known.
    fn most_output(&self, _provider: &str, _model: &str) -> Option<u64> {
        None
    }
}
