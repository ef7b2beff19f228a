//! ONNX models: fetching, sessions, tokenization, and the built-in applications.
