# The operator's image: one static binary and nothing else.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# An explicit target keeps the flags away from build scripts and procedural macros, which cannot be linked statically.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --bin sluice --target "$target" \
    && install -D "target/$target/release/sluice" /out/sluice

FROM scratch
COPY --from=build /out/sluice /sluice
# nobody anyone knows: the operator needs no file and no privilege of the node
USER 65532:65532
ENTRYPOINT ["/sluice"]
