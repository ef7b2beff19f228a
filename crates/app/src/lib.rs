//! The SDK: what an application and a replica are; the dynamic batcher; the registry of import paths.
