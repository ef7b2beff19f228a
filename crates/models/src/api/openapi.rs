//! The OpenAPI document of every path that the built-in applications answer.

/// Served at `/openapi.json`.
pub const DOCUMENT: &str = include_str!("../../openapi.json");
