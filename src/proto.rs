//! What the build script makes of `proto/`: messages, clients and services of `sagwan.v1`.
//!
//! Only the gRPC edge, the client and the command line see these types.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("sagwan.v1");
}

pub use generated::*;

/// The compiled descriptors of `proto/`, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sagwan.bin"));
