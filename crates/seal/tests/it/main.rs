//! The integration tests of `tipstaff-seal`, in one binary.

#[cfg(test)]
mod kek;
#[cfg(test)]
mod leak;
#[cfg(test)]
mod log_append;
#[cfg(test)]
mod log_export;
#[cfg(test)]
mod log_verify;
#[cfg(test)]
mod redact;
#[cfg(test)]
mod ring;
#[cfg(test)]
mod scrub;
#[cfg(test)]
mod ssh;
#[cfg(test)]
mod support;
#[cfg(test)]
mod token;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod warrant;
