//! Deliveries: handing a webhook to its organization's destination.

pub mod egress;
