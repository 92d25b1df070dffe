//! The broker over a real store.

mod accept_loss;
mod admin;
mod end;
mod every_step;
mod fetch;
mod offsets;
mod produce;
mod producers;
mod start;
