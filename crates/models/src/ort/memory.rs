//! Memory that loading a graph leaves behind.

/// Gives the pages that loading has used and freed back to the system: the runtime reads a graph
/// as a whole before it lays out the weights, which the C allocator keeps otherwise. 30 to 50 MB
/// a model.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe binding for it")]
fn trim() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: glibc's `int malloc_trim(size_t pad)` takes any number, may be called from any
    // thread at any time, and touches only free memory.
    let _ = unsafe { malloc_trim(0) };
}
