//! Bindings of the cluster's protobuf, the limits of the data plane, the one table of error
//! kinds, and the buckets of latencies. What the frames mean is written in `proto/mobula/cluster/v1/*.proto`.
//!
//! Not here: connecting and listening (`mobula_process::net`), and any decision about a request
//! (the router and the worker).

pub mod codec;
pub mod encoded;
pub mod latency;
pub mod limits;
pub mod numbers;
pub mod status;

/// The label by which a worker says which pod it runs in.
pub const POD_UID_LABEL: &str = "mobula.dev/pod-uid";

/// As [`v1`], for the head alone: it sends [`encoded::EncodedTable`] for a `RouteTable`.
pub mod head {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    include!(concat!(env!("OUT_DIR"), "/head/mobula.cluster.v1.rs"));
}

/// Generated from `proto/mobula/cluster/v1/`.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("mobula.cluster.v1");
}

impl std::fmt::Debug for v1::TlsFiles {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFiles")
            .field("certfile", &self.certfile)
            .field("keyfile", &self.keyfile)
            .field("ca_certs", &self.ca_certs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_route_table_can_be_printed_without_its_password() {
        let table = super::v1::RouteTable {
            ingress: Some(super::v1::Ingress {
                http_tls: Some(super::v1::TlsFiles {
                    certfile: "cert.pem".to_owned(),
                    keyfile: "key.pem".to_owned(),
                    keyfile_password: Some("hunter2".to_owned()),
                    ca_certs: None,
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let printed = format!("{table:?}");
        assert!(
            printed.contains("cert.pem") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
