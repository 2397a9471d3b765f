//! Writes the price table that comes with the program:
//! `cargo run -p tipstaff-model --example price_table -- FILE VERSION DATE > crates/model/src/price/table.json`,
//! where FILE is `model_prices_and_context_window_backup.json` of the Python package `litellm`.

use std::error::Error;
use std::io::Write as _;
use tipstaff_model::price::PriceTable;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, version, date] = words.as_slice() else { return Err("write FILE VERSION DATE".into()) };
    let table = PriceTable::from_litellm(&std::fs::read(file)?, version, date)?;
    std::io::stdout().write_all(table.to_json().as_bytes())?;
    Ok(())
}
