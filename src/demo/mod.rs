//! Webhooks that people send to try things out: samples, the tester, and the public sandbox.

pub mod samples;
pub mod sandbox;
pub mod tester;
