//! The Rust client when it loses its connection: at every step of an exchange, again and again, and when the broker goes.
//!
//! A real broker, and between it and the client a proxy that cuts the connection after so many bytes in one direction. What must hold: what was
//! acknowledged is there, once, in order; what is there twice was told to be of unknown fate and sent again by option; a consumer gets every
//! record once, in order.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod broker;
mod consuming;
mod members;
mod producing;
mod proxy;
mod restarting;
mod whole;
