"""`reconciler vddk-image`: a shell script that makes an image with VDDK of the user's own tarball, for the Provider setting vddkInitImage.

What it is: text from options, to be read and then run where the tarball is. What it is not: a build, a download, or anything of VMware's:
its licence lets nobody pass the library on. The image's layout is Forklift's, so one image serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from reconciler.errors import UserError
from reconciler.manifests import imageref

DISTRIB = "vmware-vix-disklib-distrib"  # the folder in VMware's tarball

_SCRIPT = """\
#!/bin/sh
# Makes an image with VMware's VDDK, for the setting vddkInitImage of a vSphere Provider. Run it with sh, where the tarball is.
#
# VDDK is VMware's (Broadcom's). Its licence lets you use it and lets nobody pass it on, so reconciler cannot bring it: the tarball comes
# from your own account there, and the image belongs into a registry of yours that the public cannot read.
# It must be VDDK for Linux on x86_64, version 6.5 to 8; best the newest that VMware supports for your vCenter.
set -eu

tarball={tarball}
image={image}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# 1. Unpack it. Everybody may read it: copy pods run as uid 107.
tar -xzf "$tarball" -C "$folder"
for library in "$folder"/{distrib}/lib64/libvixDiskLib.so.[678]; do
  [ -e "$library" ] || {{ echo "there is no VDDK 6.5 to 8 in $tarball: {distrib}/lib64/libvixDiskLib.so.8 is missing" >&2; exit 1; }}
done
chmod -R a+rX "$folder"

# 2. An image that holds it, and copies it into the volume that a copy pod mounts at /opt (whose mode here is for step 3).
cat >"$folder/Dockerfile" <<'END'
FROM {base}
USER 0
COPY {distrib} /{distrib}
RUN mkdir -p /opt && chmod 1777 /opt
USER 107:107
ENTRYPOINT ["cp", "-r", "/{distrib}", "/opt"]
END
{tool} build --platform linux/amd64 --tag "$image" "$folder"

# 3. Try it as a copy pod runs it.
{tool} run --rm --platform linux/amd64 --user 107:107 --read-only --tmpfs /opt:mode=1777 "$image"

# 4. Push it. Where the registry wants that, log in first ({tool} login).
{tool} push "$image"

cat <<'END'

{image_text} is pushed. Name it in the Provider, and runs that begin from then on read disks with VDDK:

  spec:
    settings:
      vddkInitImage: "{image_text}"

Copy pods pull it with the pull secrets of their service account in the target namespace. Give another VDDK another tag.
END
"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """`base`: what the image stands on; it needs a shell and `cp`. `tool`: podman, or what takes the same arguments."""

    tarball: str
    image: str
    base: str
    tool: str


def run(wishes: Wishes) -> int:
    print(text(wishes), end="")
    return 0


def text(wishes: Wishes) -> str:
    """Errors: UserError for a name of an image that is none."""
    for option, name in (("--image", wishes.image), ("--base", wishes.base)):
        if wrong := imageref.fault(name):
            raise UserError("InvalidArgument", f"{option} {wrong[0]}; {wrong[1]}")
    return _SCRIPT.format(
        tarball=quote(wishes.tarball),
        image=quote(wishes.image),
        image_text=wishes.image,
        base=wishes.base,
        tool=wishes.tool,
        distrib=DISTRIB,
    )
