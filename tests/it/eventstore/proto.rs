//! Generated from the `.proto` files of the crate `eventstore` 4.0.0 by `tests/protos`.

#![allow(clippy::all, clippy::pedantic, dead_code, unused, reason = "generated code")]

pub mod event_store {
    pub mod client {
        include!("proto/event_store.client.rs");

        pub mod server_features {
            include!("proto/event_store.client.server_features.rs");
        }
        pub mod streams {
            include!("proto/event_store.client.streams.rs");
        }
    }
}

pub mod google {
    pub mod rpc {
        include!("proto/google.rpc.rs");
    }
}
