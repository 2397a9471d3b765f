//! What the gateway asks about prices.

use tipstaff_model::{PriceTable, Quote};

/// Who knows what models cost.
pub trait Pricer: Send + Sync {
    /// The price of a model, and whether it is known.
    fn quote(&self, provider: &str, model: &str) -> Quote;
}

impl Pricer for PriceTable {
    fn quote(&self, provider: &str, model: &str) -> Quote {
        Self::quote(self, provider, model)
    }
}
