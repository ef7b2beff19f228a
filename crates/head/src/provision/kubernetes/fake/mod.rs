//! A Kubernetes for tests that does what a real one cannot be asked for: it conflicts, throttles,
//! hangs, answers and does not do, does and does not answer, forgets what it watched.
//!
//! [`api_server`] speaks the API to the real client; [`cluster`] is the rest, a kubelet and a model
//! of the head, in virtual time. [`scenarios`] runs the file that tests/kubernetes runs against the
//! real control plane, which is what proves the fake.

mod answers;
mod api_server;
mod cluster;
mod faults;
mod scenarios;
