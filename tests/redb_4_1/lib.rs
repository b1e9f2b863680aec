//! The index of `src/store/index`, on redb 4.1.0.

#[path = "../../src/model.rs"]
pub mod model;
#[path = "../../src/protocol.rs"]
pub mod protocol;

#[path = "../../src/store"]
pub mod store {
    pub mod index;
    pub mod path;
}
