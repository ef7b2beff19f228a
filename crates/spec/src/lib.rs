//! The Serve config: every field, default and rule; ids; the difference of two configs. Pure.
