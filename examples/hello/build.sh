#!/bin/sh
# Builds the service into dist/. POINTSMAN_CACHE is a folder that is kept between builds.
set -eu
export CARGO_TARGET_DIR="${POINTSMAN_CACHE:-target}"
# What is there already needs no network.
cargo build --locked --offline 2>/dev/null || cargo build --locked
mkdir -p dist
cp "$CARGO_TARGET_DIR/debug/hello" dist/hello
