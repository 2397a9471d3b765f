//! Loading a filter into the kernel.

use crate::sys::{self, Errno};

#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const u8,
}

const SET_MODE_FILTER: usize = 1;

/// Loads `filter` for this thread and all it will ever start. Needs `no_new_privs`. An empty one is refused.
#[expect(unsafe_code, reason = "seccomp(2) takes a pointer to a structure with a pointer")]
pub(crate) fn load(filter: &[u8]) -> Result<(), Errno> {
    let length = u16::try_from(filter.len() / 8).map_err(|_| libc::EINVAL)?;
    if length == 0 || !filter.len().is_multiple_of(8) {
        return Err(libc::EINVAL);
    }
    let program = FilterProgram { length, instructions: filter.as_ptr() };
    // SAFETY: the structure and the instructions it points to are live; the kernel copies them and checks each.
    unsafe { sys::call(libc::SYS_seccomp, [SET_MODE_FILTER, 0, (&raw const program) as usize, 0, 0, 0]) }?;
    Ok(())
}
