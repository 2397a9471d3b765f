//! `tipstaff database`: making a PostgreSQL database ready.

use crate::env::Environment;
use crate::exit::Problem;
use crate::output::Output;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_seal::{Secret, SystemClock};
use tipstaff_store::{PostgresPasswords, Store, StoreConfig};

/// Carries out `tipstaff database prepare`.
pub(crate) async fn prepare(env: &Environment, output: &Output) -> anyhow::Result<ExitCode> {
    let missing = |name: &str| {
        Problem::usage(
            "database-address",
            format!("{name} is not set; `tipstaff database prepare --help` says what it is"),
        )
    };
    let owner = env.database_owner_url.as_ref().ok_or_else(|| missing("TIPSTAFF_DATABASE_OWNER_URL"))?;
    let app = env.database_url.as_ref().ok_or_else(|| missing("TIPSTAFF_DATABASE_URL"))?;
    // Wrong addresses are told apart before anything is made.
    StoreConfig::from_url(app)?;
    let passwords = PostgresPasswords { app: password(app), scheduler: password(app) };
    Store::provision_postgres(owner, &passwords, &SystemClock).await?;
    if output.json {
        output.object(&json!({ "prepared": true }));
    } else {
        output.line("the roles tipstaff_app and tipstaff_scheduler and the schema are in place");
    }
    Ok(ExitCode::SUCCESS)
}

/// The password within an address, percent-decoded.
fn password(url: &str) -> Option<Secret<String>> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.split_once('@')?;
    let (_, encoded) = user.split_once(':')?;
    let mut bytes = Vec::new();
    let mut left = encoded.bytes();
    while let Some(byte) = left.next() {
        if byte == b'%' {
            let (high, low) = (left.next()?, left.next()?);
            bytes.push(u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_and_decoded() {
        let found = |url: &str| password(url).map(|secret| secret.expose().clone());
        assert_eq!(found("postgres://tipstaff_app:a%40b@db/x").as_deref(), Some("a@b"));
        assert_eq!(found("postgres://tipstaff_app@db/x?host=/a:b"), None);
    }
}
