//! Bindings of the cluster's protobuf, the data-plane frames, and the one table of error kinds.
