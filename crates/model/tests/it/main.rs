//! The integration tests of the model: what holds for every warrant and every chain of narrowings.

#[cfg(test)]
mod explain;
#[cfg(test)]
mod live;
#[cfg(test)]
mod narrowing;
#[cfg(test)]
mod sub_run;
