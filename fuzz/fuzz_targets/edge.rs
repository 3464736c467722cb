#![no_main]

#[path = "../edge.rs"]
mod edge;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    drop(runtime.block_on(edge::connection(data)));
});
