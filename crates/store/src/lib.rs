//! StateStore: the head's durable key-value state, embedded or in memory.
