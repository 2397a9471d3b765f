//! Git's objects and names: nothing that is read panics, and no name that passes has a separator in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::{commit, link, names, tree};
use tipstaff_model::AgentRole;

fuzz_target!(|bytes: &[u8]| {
    for entry in tree::entries(bytes).flatten() {
        if names::fault(entry.name, false).is_none() {
            assert!(!entry.name.is_empty() && !entry.name.contains(&b'/') && !entry.name.contains(&b'\\'));
            assert!(!names::is_git_folder(entry.name));
        }
    }
    let _ = commit::fault(bytes, &AgentRole::Builder.git_identity(), "run");
    let (path, target) = bytes.split_at(bytes.len() / 2);
    if link::fault(path, target).is_none() {
        assert!(!target.starts_with(b"/") && !target.contains(&b'\\'));
    }
});
