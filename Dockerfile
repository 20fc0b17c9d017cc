# One image for both: the reconciler itself, and the copy pods that it starts (`reconciler worker`), which run as uid 107.
# Build it on amd64 (nbdkit-plugin-vddk exists for nothing else):  docker build -t reconciler:latest .

FROM debian:trixie-slim AS build
# The compiler and libxml2 are for ovirt-engine-sdk-python, which PyPI has as source only.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libxml2-dev python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY reconciler /src/reconciler
COPY schemas /src/schemas
COPY examples /src/examples
# System packages stay visible, because libnbd's Python binding comes from Debian.
RUN python3 -m venv --system-site-packages /opt/reconciler \
 && /opt/reconciler/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheel /src \
 && /opt/reconciler/bin/pip install --no-cache-dir /tmp/wheel/*.whl

FROM debian:trixie-slim
# The user comes first, so that no package takes its number. 107 is qemu in KubeVirt's virt-launcher: what the copy pod writes, the guest's
# process can open. ssh refuses to run for a number without a name.
RUN groupadd --gid 107 reconciler \
 && useradd --uid 107 --gid 107 --home-dir /home/reconciler --create-home --shell /usr/sbin/nologin reconciler \
 && install -d -o 107 -g 107 /var/cache/reconciler
# contrib holds nbdkit's VDDK plugin: free software that loads VMware's library, which is not in this image.
# virt-v2v, nbdkit and libnbd are here for conversion and VDDK, which this version does not do yet.
RUN sed -i 's/^Components: main$/Components: main contrib/' /etc/apt/sources.list.d/debian.sources \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates git nbdkit nbdkit-plugin-vddk openssh-client python3-libnbd python3-venv qemu-utils virt-v2v \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/reconciler /opt/reconciler
ENV PATH=/opt/reconciler/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/reconciler \
    PYTHONDONTWRITEBYTECODE=1 \
    RECONCILER_CACHE_DIR=/var/cache/reconciler
USER 107:107
WORKDIR /home/reconciler
# Fails the build when a part is missing, the C parser for YAML above all.
RUN python3 -c 'import nbd' \
 && reconciler validate "$(python3 -c 'import reconciler, pathlib; print(pathlib.Path(reconciler.__file__).parent / "_data/examples/repo")')"
ENTRYPOINT ["reconciler"]
CMD ["run"]
