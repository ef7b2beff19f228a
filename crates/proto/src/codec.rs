//! How messages are written: as prost does it, with room for the whole message made first.
//!
//! A batch of bodies is up to a quarter of a megabyte. Written into a buffer that grows as it is
//! filled, it would be copied several times over.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// The codec of all services here.
#[derive(Clone, Debug)]
pub struct RoomyCodec<T, U>(PhantomData<(T, U)>);

/// Writes messages.
#[derive(Clone, Debug)]
pub struct RoomyEncoder<T>(PhantomData<T>);

impl<T, U> Default for RoomyCodec<T, U> {
    fn default() -> RoomyCodec<T, U> {
        RoomyCodec(PhantomData)
    }
}

impl<T, U> Codec for RoomyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = RoomyEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> RoomyEncoder<T> {
        RoomyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstCodec::<T, U>::default().decoder()
    }
}

impl<T: Message> Encoder for RoomyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        let encoded = item.encode(buf);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}
