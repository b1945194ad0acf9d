# Consort's image; with `--target provider`, that of the scripted panel which deploy/envoy/docker-compose.yaml asks.
#
#   docker build -t consort:local .
#   docker build -t consort-provider:local --target provider .
#
# Both bases may be replaced: BASE has cargo (1.91 or newer) and a C compiler, RUNTIME has glibc as new as BASE's and
# libgcc. Crates come from the registry, or from `vendor/` where `cargo vendor` and `.cargo/config.toml` have put them.
# Nothing in here needs BuildKit.
ARG BASE=rust:1.95.0-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

# What dependencies are built from: manifests, and sources that say nothing. As a stage of its own it is copied by its
# contents, so that the dependencies below are built again when these change, and not with every line of code.
FROM ${BASE} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -path './vendor/*' ! -path './.cargo/*' ! -name Cargo.toml ! -name Cargo.lock -delete \
 && for root in build src/main src/lib benches/micro benches/baseline benches/rig/main benches/rig/counted benches/soak/main \
                tests/support/src/lib tests/support/src/bin/provider; do \
      mkdir -p "$(dirname "$root")" && echo 'fn main() {}' > "$root.rs" || exit 1; \
    done

FROM ${BASE} AS build
# The program carries the list of its crates, which scanners of images read. Empty where cargo-auditable cannot be had.
ARG AUDITABLE=0.7.7
WORKDIR /
RUN [ -z "${AUDITABLE}" ] || cargo install --locked --version "${AUDITABLE}" cargo-auditable
WORKDIR /src
COPY --from=manifests /src .
RUN cargo ${AUDITABLE:+auditable} build --release --locked --package consort --package consort-testkit --lib --bins
COPY . .
# cargo goes by times, and the sources are older than what was just built of their namesakes.
RUN find . -name '*.rs' ! -path './vendor/*' -exec touch {} + \
 && cargo ${AUDITABLE:+auditable} build --release --locked --package consort --package consort-testkit --lib --bins

FROM ${RUNTIME} AS provider
LABEL org.opencontainers.image.title="consort-provider" \
      org.opencontainers.image.description="A panel of language models that answers from a script" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/provider /usr/local/bin/provider
USER 65532:65532
EXPOSE 9000
ENTRYPOINT ["/usr/local/bin/provider"]
CMD ["0.0.0.0:9000"]

FROM ${RUNTIME} AS consort
LABEL org.opencontainers.image.title="consort" \
      org.opencontainers.image.description="One model alias that stands for several models, beside Envoy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/consort /usr/local/bin/consort
COPY LICENSE /usr/share/doc/consort/
USER 65532:65532
EXPOSE 50051 8080 9902
ENTRYPOINT ["/usr/local/bin/consort"]
CMD ["serve", "-c", "/etc/consort/consort.yaml"]
