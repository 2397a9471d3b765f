//! What the runner promises about the things it leaves on disk. Whole runs are tested through the binary.

#[cfg(test)]
mod leftovers;
