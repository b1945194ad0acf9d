//! How messages of Envoy's stream are read and written.

use tonic::codec::{self, BufferSettings};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::pb;

/// What a stream's buffers begin with, in bytes, each of the two: most messages are shorter, and thousands of streams
/// may wait. They grow with what comes.
const BUFFER: usize = 1 << 10;
/// From how many bytes on replies that are ready are not gathered any further.
const YIELD: usize = 32 << 10;

/// Protocol buffers, as ever, in small buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec;

impl codec::Codec for Codec {
    type Encode = pb::ProcessingResponse;
    type Decode = pb::ProcessingRequest;
    type Encoder = ProstEncoder<pb::ProcessingResponse>;
    type Decoder = ProstDecoder<pb::ProcessingRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, YIELD))
    }
}
