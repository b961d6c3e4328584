# syntax=docker/dockerfile:1
# synapse-backup with the PostgreSQL client tools, as an unprivileged user. The root file system may be read-only; only /tmp (where lists go
# that do not fit into memory) and, if used, the folder of the writer key must be writable.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cmake && rm -rf /var/lib/apt/lists/*
# The list of what is inside is in the program itself: `cargo audit bin` and image scanners read it.
RUN --mount=type=cache,target=/usr/local/cargo/registry cargo install --locked cargo-auditable@0.7.7
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo auditable build --release --locked && cp target/release/synapse-backup /synapse-backup

FROM debian:bookworm-slim AS tool
# pg_dump must not be older than the server: PGDG's newest dumps every supported version.
ARG POSTGRESQL_CLIENT=18
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && install -d /usr/share/postgresql-common/pgdg \
    && curl -fsSL -o /usr/share/postgresql-common/pgdg/apt.postgresql.org.asc https://www.postgresql.org/media/keys/ACCC4CF8.asc \
    && echo "deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main" \
       > /etc/apt/sources.list.d/pgdg.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends "postgresql-client-${POSTGRESQL_CLIENT}" \
    && apt-get purge -y --auto-remove curl \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /synapse-backup /usr/local/bin/synapse-backup
# 991 is the user of the Synapse image, whose media and keys are to be read.
RUN groupadd --gid 991 synapse-backup && useradd --uid 991 --gid 991 --home-dir /var/lib/synapse-backup --create-home --shell /usr/sbin/nologin synapse-backup
# Where the root file system is read-only, /var/tmp is too.
ENV TMPDIR=/tmp
USER 991:991
WORKDIR /var/lib/synapse-backup
ENTRYPOINT ["/usr/local/bin/synapse-backup"]
CMD ["--help"]

# For drills (`docker build --target drill`): with PostgreSQL's server programs, of which a throw-away cluster is made. No cluster of the image's own.
FROM tool AS drill
ARG POSTGRESQL_CLIENT=18
USER 0:0
RUN mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends "postgresql-${POSTGRESQL_CLIENT}" \
    && rm -rf /var/lib/apt/lists/*
USER 991:991

FROM tool
