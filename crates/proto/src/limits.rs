//! Limits that both ends of the data plane hold to.

/// One body chunk on the wire. Small enough that chunks of many requests interleave fairly,
/// large enough that a 10 MB body is 160 frames.
pub const BODY_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// What a sender may send of one body before the reader gave any credit.
pub const BODY_WINDOW_BYTES_INITIAL: usize = 256 * 1024;

/// A `FrameBatch` is closed when its bodies reach this size, so that a message stays far below
/// [`MESSAGE_BYTES_MAX`] and a large body does not delay small requests behind it for long.
pub const BATCH_BODY_BYTES_MAX: usize = 256 * 1024;

/// Frames in one `FrameBatch`.
pub const BATCH_FRAMES_MAX: usize = 256;

/// The decoder's limit for one message, on both ends.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Frames waiting to be written on one stream; a sender waits beyond that.
pub const STREAM_FRAMES_QUEUED_MAX: usize = 4096;
