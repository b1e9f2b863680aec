//! The hub from outside: real broker sockets, a real MQTT client as the node, real pictures, the real program.
#![cfg(feature = "hub")]

mod brokers;
mod contract;
mod disk;
mod node;
mod retime;
