//! The replica host: assignment, supervision, data-plane service.
