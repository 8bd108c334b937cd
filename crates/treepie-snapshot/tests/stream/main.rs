//! Streams from outside: what goes in comes out, and nothing that is damaged comes through.

mod damage;
mod golden;
mod order;
mod sample;
mod trips;
