//! What the gateway asks about prices.

use tipstaff_model::{PriceTable, Quote};

/// Who knows what models cost.
pub trait Pricer: Send + Sync {
    /// The price of a model, and whether it is known.
    fn quote(&self, provider: &str, model: &str) -> Quote;
}

/// What a model costs at the upstream that serves it. An upstream that the table doesn't know takes what the provider
/// takes that it stands in for.
pub(crate) fn quote(prices: &dyn Pricer, asked: &str, served: &str, model: &str) -> Quote {
    let quote = prices.quote(served, model);
    if quote.known || served == asked {
        return quote;
    }
    let instead = prices.quote(asked, model);
    if instead.known { instead } else { quote }
}

impl Pricer for PriceTable {
    fn quote(&self, provider: &str, model: &str) -> Quote {
        Self::quote(self, provider, model)
    }
}
