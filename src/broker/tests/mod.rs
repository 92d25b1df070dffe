//! The broker over a real store.

mod admin;
mod end;
mod fetch;
mod offsets;
mod produce;
mod producers;
mod start;
