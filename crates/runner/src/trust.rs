//! Whom programs in a sandbox trust: the machine's authorities, and the run's own where hosts are inspected.

use crate::RunnerError;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tipstaff_broker::Inspection;
use tipstaff_sandbox::ReadOnlyMount;

/// Where a sandbox sees the certificates.
const INSIDE: &str = "/tipstaff/trust";
/// The run's own authority.
const OWN: &str = "ca.pem";
/// All authorities together.
const BUNDLE: &str = "bundle.pem";

/// Variables by which programs are told of a file with all authorities.
const BUNDLE_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
];
/// The variable for authorities that are added to the built-in ones.
const OWN_VARIABLE: &str = "NODE_EXTRA_CA_CERTS";

/// Writes the certificates into `folder`; the variables that tell of them, and the mount. The authority's private key is
/// not among them: it has no form outside the broker.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn furnish(
    inspection: &Inspection,
    folder: &Path,
) -> Result<(Vec<(String, String)>, ReadOnlyMount), RunnerError> {
    let own = inspection.authority.certificate_pem();
    let bundle = format!("{}\n{own}", inspection.trust.bundle_pem());
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        for (name, text) in [(OWN, &own), (BUNDLE, &bundle)] {
            let mut options = std::fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o644).open(folder.join(name))?;
            file.write_all(text.as_bytes())?;
        }
        Ok(())
    };
    write().map_err(RunnerError::io("writing the run's certificates"))?;
    let inside = |name: &str| format!("{INSIDE}/{name}");
    let mut env: Vec<(String, String)> =
        BUNDLE_VARIABLES.iter().map(|&name| (name.to_owned(), inside(BUNDLE))).collect();
    env.push((OWN_VARIABLE.to_owned(), inside(OWN)));
    Ok((env, ReadOnlyMount { host: folder.to_owned(), inside: PathBuf::from(INSIDE) }))
}
