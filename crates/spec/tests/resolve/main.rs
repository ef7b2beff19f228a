//! What becomes of the code's options, the config and the defaults; what Ray says late.

mod changes;
mod given;
mod late;
mod properties;
mod setup;
