//! The ingress: route table, admission, queues, dispatch.
