//! Tests of what tests share.

#[cfg(test)]
mod model_server;
#[cfg(test)]
mod support;
