//! The codec of our services: prost's, with two differences.
//!
//! 1. A message is given its room at once. prost's own lets the buffer grow as it is written: a message of a mebibyte is moved five
//!    times on its way from 64 KiB.
//! 2. A message that is no message is the client's mistake, and a status of the table says so. tonic's own answers INTERNAL, which
//!    would say that something may have happened.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec as TonicCodec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::status::invalid;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Codec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = CheckedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder { messages: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder { messages: PhantomData }
    }
}

/// Encodes messages into room of their size.
#[derive(Debug, Clone)]
pub(crate) struct SizedEncoder<T> {
    messages: PhantomData<T>,
}

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode_raw(buffer);
        Ok(())
    }
}

/// Decodes messages, and refuses what is none.
#[derive(Debug, Clone)]
pub(crate) struct CheckedDecoder<U> {
    messages: PhantomData<U>,
}

impl<U: Message + Default> Decoder for CheckedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let decoded = U::decode(source);
        decoded.map(Some).map_err(|error| invalid("", format_args!("the request is no message of this call: {error}")))
    }
}
