# The program in a small image: built here, run as nobody in particular, on a file system that may be read-only.
#   docker build -t endstate .
FROM rust:1.94-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Brokers behind TLS or SASL: --build-arg FEATURES=kafka-tls, which builds OpenSSL and needs perl.
ARG FEATURES=""
RUN if [ -n "$FEATURES" ]; then \
        apt-get update && apt-get install -y --no-install-recommends perl && rm -rf /var/lib/apt/lists/*; \
    fi
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --features "$FEATURES" && cp target/dist/endstate /usr/local/bin/endstate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin endstate \
    && install -d -o endstate -g endstate /data /tokens
COPY --from=build /usr/local/bin/endstate /usr/local/bin/endstate
COPY deploy/prepare.sh /usr/local/bin/endstate-prepare
USER 10001:10001
# Files of channels and alerts; an embedded store, where one is used.
VOLUME /data
ENV ENDSTATE_DATA=/data ENDSTATE_HTTP_LISTEN=0.0.0.0:7600 ENDSTATE_LOG_FORMAT=json
EXPOSE 7600
# SIGTERM drains: the server says that it is not ready, finishes what it has begun, flushes, and leaves the groups.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["endstate", "check", "--only", "ready"]
ENTRYPOINT ["endstate"]
CMD ["serve"]
