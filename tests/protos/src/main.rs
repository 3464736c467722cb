//! Makes the messages and services of the double of an EventStoreDB from the `.proto` files of the client.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [protos, out] = [1, 2].map(|n| std::env::args().nth(n).unwrap_or_default());
    let files = protox::compile(["streams.proto", "serverfeatures.proto"], [protos])?;
    tonic_build::configure().build_client(false).out_dir(out).compile_fds(files)?;
    Ok(())
}
