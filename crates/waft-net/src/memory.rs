//! Memory that a crowd has left behind.

/// Gives memory that this thread has freed back to the system. The allocator keeps it otherwise until
/// it is asked for more, which after a crowd has left may be never. Costs up to some milliseconds: for
/// the moment after many connections have ended, not for the way of a request.
#[allow(unsafe_code, reason = "the allocator's own interface")]
pub fn give_memory_back() {
    // SAFETY: `mi_collect` may be called at any time from any thread. It touches memory that is free, of the calling
    // thread's heap and of the process; if another allocator is in use, there is none and it does nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
