# The operator's image: one static binary, and for the node agent nft with the libraries that it is linked with.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends nftables \
    && install -D /usr/sbin/nft /out/usr/sbin/nft \
    && ldd /usr/sbin/nft | grep -o '/[^ :]*\.so[^ :]*' | xargs -I{} install -D {} /out{}
WORKDIR /src
COPY . .
# An explicit target keeps the flags away from build scripts and procedural macros, which cannot be linked statically.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --bin sluice --target "$target" \
    && install -D "target/$target/release/sluice" /out/sluice

FROM scratch
COPY --from=build /out/ /
# nobody anyone knows: the controller needs no file and no privilege; the node agent's pod says that it is root
USER 65532:65532
ENTRYPOINT ["/sluice"]
