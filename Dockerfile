# One image for both: the reconciler itself, and the copy pods that it starts (`reconciler worker`), which run as uid 107.
# Build it on amd64 (nbdkit-plugin-vddk exists for nothing else):  docker build -t reconciler:latest .
# A package index of your own, or a CA of your own, comes as a secret and stays out of the image:
#   --secret id=pip.conf,src=pip.conf --secret id=ca.crt,src=ca.crt   (the latter where pip.conf says: cert = /run/secrets/ca.crt)

ARG BASE=debian:trixie-slim

# The dependencies alone: a change of code leaves this layer as it is, here and in every registry and node that has it.
FROM ${BASE} AS needs
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/*
# The image's own environment has no pip; this one fills it. System packages stay visible there, because libnbd's binding comes from Debian.
RUN python3 -m venv /opt/build \
 && python3 -m venv --without-pip --system-site-packages /opt/reconciler
COPY pyproject.toml /src/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt \
    python3 -c 'import tomllib; p = tomllib.load(open("/src/pyproject.toml", "rb")); print(*p["project"]["dependencies"], sep="\n")' >/src/needs.txt \
 && /opt/build/bin/pip install --no-cache-dir 'hatchling>=1.24' \
 && /opt/build/bin/pip --python /opt/reconciler/bin/python install --no-cache-dir --requirement /src/needs.txt

FROM needs AS build
COPY README.md LICENSE /src/
COPY reconciler /src/reconciler
COPY schemas /src/schemas
COPY examples /src/examples
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel /src \
 && /opt/build/bin/pip --python /opt/reconciler/bin/python install --no-cache-dir --no-deps --no-index --no-warn-script-location --root /code /tmp/wheel/*.whl

FROM ${BASE}
# The user comes first, so that no package takes its number. 107 is qemu in KubeVirt's virt-launcher: what the copy pod writes, the guest's
# process can open. ssh refuses to run for a number without a name.
RUN groupadd --gid 107 reconciler \
 && useradd --uid 107 --gid 107 --home-dir /home/reconciler --create-home --shell /usr/sbin/nologin reconciler \
 && install -d -o 107 -g 107 /var/cache/reconciler
# contrib holds nbdkit's VDDK plugin: free software that loads VMware's library, which is not in this image.
RUN sed -i 's/^Components: main$/Components: main contrib/' /etc/apt/sources.list.d/debian.sources \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates git nbdkit nbdkit-plugin-vddk openssh-client python3 python3-libnbd tini \
 && rm -rf /var/lib/apt/lists/*
# Guest conversion is not done yet, and it would make this image twice as big: --build-arg CONVERSION=yes.
ARG CONVERSION=no
RUN if [ "$CONVERSION" = yes ]; then \
      apt-get update \
      && apt-get install -y --no-install-recommends qemu-utils virt-v2v \
      && rm -rf /var/lib/apt/lists/*; \
    fi
COPY --from=needs /opt/reconciler /opt/reconciler
COPY --from=build /code /
ENV PATH=/opt/reconciler/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/reconciler \
    PYTHONDONTWRITEBYTECODE=1 \
    RECONCILER_CACHE_DIR=/var/cache/reconciler
USER 107:107
WORKDIR /home/reconciler
# Fails the build when a part is missing, the C parser for YAML above all.
RUN python3 -c 'import nbd' \
 && nbdkit vddk --version \
 && reconciler validate "$(python3 -c 'import reconciler, pathlib; print(pathlib.Path(reconciler.__file__).parent / "_data/examples/repo")')"
# git leaves grandchildren behind (its maintenance runs detached). In a container they fall to process 1, and one that does not wait for them
# has a zombie for each, until nothing can be forked any more.
ENTRYPOINT ["tini", "--", "reconciler"]
CMD ["run"]
