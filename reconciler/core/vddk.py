"""VMware's library: which image brings it into our pods, by the settings as they are now, and what a VM does that needs it and has none.

What it is: pure; the one answer for plan checks, previews, inventory and pods. What it is not: the choice of a reader for one disk
(datapath.py), or the library, which comes with the user's own image.
The path of a disk is frozen when a run begins; the image is not, so that a wrong name can be corrected while a VM waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.datapath import VDDK
from reconciler.core.desired import Limits, ProviderSpec
from reconciler.core.model import Platform
from reconciler.core.moves import Hold
from reconciler.core.view import View

_AIO = "VixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nVixDiskLib.nfcAio.Session.BufCount=4\n"  # Forklift's


@dataclass(frozen=True, slots=True)
class Named:
    """`setting`: where the image is named, for a person. Both are "" where disks are read without VDDK."""

    image: str = ""
    setting: str = ""


def named(provider: ProviderSpec | None, limits: Limits) -> Named:
    """The Provider's own image goes before that of the ForkliftController, which is for all of vSphere."""
    if provider is None or provider.platform != Platform.VSPHERE:
        return Named()
    if image := provider.settings.get("vddkInitImage", ""):
        return Named(image, f"vddkInitImage of Provider {provider.ref}")
    return Named(limits.vddk_image, "vddk_image of the ForkliftController") if limits.vddk_image else Named()


def switched_on(setting: str) -> bool:
    """`useVddkAioOptimization`, as Go's strconv.ParseBool reads it; what it cannot read is false, as in Forklift."""
    return setting in ("1", "t", "T", "TRUE", "true", "True")


def configuration(settings: Mapping[str, str]) -> str:
    """Text of VDDK's configuration file, of a Provider's settings; "" for none. As in Forklift, vddkConfig alone counts for nothing."""
    return settings.get("vddkConfig") or _AIO if switched_on(settings.get("useVddkAioOptimization", "")) else ""


def image_for(v: View) -> str:
    """For pods of this VM; "" where they need none, or none is named any more."""
    return v.vddk if needs(v) else ""


def needs(v: View) -> bool:
    return any(disk.path == VDDK for disk in v.frozen.disks)


def missing(v: View) -> Hold | None:
    """A disk that was planned for VDDK is read by nothing else: what was judged for it (chains, datastores) was judged with VDDK."""
    if not needs(v) or v.vddk:
        return None
    text = "its disks are to be read with VDDK, and no setting names an image with it any more"
    return Hold("VDDKInitImageUnavailable", "NotSet", f"{text}; set vddkInitImage on the Provider again, or cancel this VM")
