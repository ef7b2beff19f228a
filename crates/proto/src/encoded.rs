//! A message that is encoded once and sent to many.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

use crate::v1;

/// A route table as it goes over the wire. All routers get the same one, and encoding it costs
/// far more than copying its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncodedTable {
    version: u64,
    bytes: Bytes,
}

// === impl EncodedTable ===

impl EncodedTable {
    /// Encodes a table.
    pub fn of(table: &v1::RouteTable) -> EncodedTable {
        EncodedTable {
            version: table.version,
            bytes: table.encode_to_vec().into(),
        }
    }

    /// The version of the table that it holds; 0: none.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl fmt::Debug for EncodedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, bytes) = (self.version, self.bytes.len());
        write!(f, "table {version} in {bytes} bytes")
    }
}

/// On the wire it is a `v1::RouteTable`.
impl Message for EncodedTable {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.bytes);
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// It is only ever sent; whoever receives decodes a `v1::RouteTable`.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        *self = EncodedTable::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_the_table() {
        let table = v1::RouteTable {
            version: 7,
            routers: vec!["one".to_owned(), "two".to_owned()],
            ..v1::RouteTable::default()
        };
        let encoded = EncodedTable::of(&table);
        assert_eq!(encoded.version(), 7);
        let sent = encoded.encode_to_vec();
        assert_eq!(v1::RouteTable::decode(sent.as_slice()), Ok(table));
    }
}
