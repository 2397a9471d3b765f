//! The integration tests of `tipstaff-seal`, in one binary.
