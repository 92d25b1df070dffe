//! The edges: each speaks one protocol, translates its wire types into the broker's own and back, and knows no other
//! edge.

pub mod grpc;
