//! The bytes of a link, before and after its handshake. What is done with them stands in
//! `common/src/link/fuzz.rs`, for none of it is public.

use common::link::fuzz;

/// What a stranger says first: `preamble | first Noise message`. A verdict, where it is as long.
pub fn first_flight(data: &[u8]) {
    fuzz::first_flight(data);
    if let Some(verdict) = data.first_chunk() {
        fuzz::verdict(verdict);
    }
}

/// A message without its length: any of the cluster's, a hello, the answer to it.
pub fn message(data: &[u8]) {
    fuzz::message(data);
    fuzz::hello(data);
    fuzz::welcome(data);
}

/// `lengths of segments [4] | frames`.
pub fn stream(data: &[u8]) {
    if let Some((segments, received)) = data.split_first_chunk::<4>() {
        fuzz::stream(received, segments);
    }
}
