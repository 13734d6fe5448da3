//! Compiles the proto files in pure Rust: no protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["pointsman/fleet/v1/fleet.proto", "pointsman/agent/v1/agent.proto", "pointsman/operator/v1/operator.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // What the command prints with `-o json` is the message itself: one shape for machines, kept by the proto rules.
        .type_attribute(".pointsman.operator.v1", "#[derive(serde::Serialize)]")
        .type_attribute(".pointsman.fleet.v1.Version", "#[derive(serde::Serialize)]")
        .type_attribute(".pointsman.fleet.v1.Decided", "#[derive(serde::Serialize)]")
        .bytes(".pointsman.fleet.v1.Resource.body")
        .bytes(".pointsman.fleet.v1.Transfer.data")
        .compile_fds(descriptors)?;
    Ok(())
}
