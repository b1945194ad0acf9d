#!/usr/bin/env bash
# Builds a release: deploy/release.sh DIRECTORY. There will be the program, with the list of its crates inside
# (cargo-auditable), its bill of materials (CycloneDX), and the sums of both.
#
# The same commit should make the same bytes wherever it lies (docs/release.md): what is compiled is told other paths than the
# real ones, versions are pinned, and no clock is read.
set -euo pipefail

out=${1:?usage: deploy/release.sh DIRECTORY}
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
cd "$(dirname "$0")/.."
source=$(pwd -P)

# The compiler of the Dockerfile's image. Without rustup, the one there is must be that one.
toolchain=1.95.0
if command -v rustup >/dev/null; then
  export RUSTUP_TOOLCHAIN=$toolchain
  rustup toolchain list | grep -q "^$toolchain-" || rustup toolchain install --profile minimal "$toolchain"
fi
rustc --version | grep -q "^rustc $toolchain " || { echo "release.sh: rustc $toolchain is wanted" >&2; exit 1; }
target=$(rustc -vV | sed -n 's/^host: //p')

tool() {
  command -v "$1" >/dev/null && cargo "${1#cargo-}" --version 2>/dev/null | grep -qF "$2" ||
    cargo install --quiet --locked --version "$2" "$1"
}
# What has a known hole is no release. Without the database, in no other way than by saying so.
if [ "${ADVISORIES:-checked}" != unchecked ]; then
  tool cargo-deny 0.20.2
  cargo deny fetch db
  cargo deny --locked check advisories
fi
tool cargo-auditable 0.7.7
tool cargo-cyclonedx 0.5.9

# Not where other builds are: those have other flags.
build=${CARGO_TARGET_DIR:-$source/target}/release-build
mkdir -p "$build"
build=$(cd "$build" && pwd -P)
crates=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd -P)
library=$(rustc --print sysroot)/lib/rustlib/src/rust
# Of two that fit, rustc takes the last: the narrower ones come later.
rust_paths="" c_paths=""
for pair in "$source=/consort" "$crates=/cargo" "$library=/rust" "$build=/build"; do
  rust_paths+=" --remap-path-prefix=$pair"
  c_paths+=" -ffile-prefix-map=$pair"
done
export RUSTFLAGS="${rust_paths# }" CFLAGS="${c_paths# }"
unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS RUSTC_WRAPPER
export CARGO_TARGET_DIR=$build CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

# With its target named, build scripts and macros are built without these flags, as they are in no release.
#
# Thin LTO names what modules share by their hashes, and these by what makes no difference to the machine code: one phi had
# its operands in another order in another directory. The modules' own names serve as well.
promoted=-use-source-filename-for-promoted-locals
cargo auditable rustc --release --locked --package consort --bin consort --target "$target" -- -C llvm-args="$promoted"

bill=consort-$target.cdx
cargo cyclonedx --format json --target "$target" --override-filename "$bill"
# It calls our own package by where its sources lie.
told=$(<"$bill.json")
printf '%s\n' "${told//"file://$source"/file:///consort}" > "$out/$bill.json"
rm -f "$bill.json" "tests/support/$bill.json"

cp "$build/$target/release/consort" "$out/consort-$target"
cd "$out"
sha256sum "consort-$target" "$bill.json" > SHA256SUMS
cat SHA256SUMS
