"""The trial before the source goes off: one pod mounts all disks of a VM in one place and opens each as the copy and the guest will.

What it is: the pure moves around the binder pod (safety 22 and 25). What it is not: the opening itself (mover/trial.py, in that pod).
Why the VM's own volumes, and no small PVC of each class beside them: the pod that binds them mounts them anyway, so the trial costs no
object that could be left behind, and proves more: these very volumes, all on one node, with this VM's placement. Once per VM and set of
PVCs: the record keeps what was tried, so that a restart does not repeat it. Where VDDK is to read the disks, the same pod gets it and loads
it: an image that cannot be pulled or holds no library is found with the guest still up, and a corrected one is tried at once.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

from reconciler.core import names, vddk
from reconciler.core.actions import EnsureBinder
from reconciler.core.copying import result_of
from reconciler.core.copyspec import EXIT_WRONG, VDDK_INVALID
from reconciler.core.moves import Do, Fail, Hold, Move, Reach, Wait, drop_binder
from reconciler.core.target import Binder, BinderSpec
from reconciler.core.view import View

PAUSE_S = 30.0  # between two trials, where time may mend what the first met


def tried(v: View) -> bool:
    return v.record.tried == v.trial


def try_volumes(v: View) -> Move:
    binder = v.binder
    if binder is None or binder.deleting or binder.trial != _trial(v):
        return mount(v, "the volumes are opened on trial")
    match binder.phase:
        case "Succeeded":
            return Reach(v.record.milestone, "the copy pod and the guest can open all disks", tried=v.trial)
        case "Failed":
            return _failed(v, binder)
        case _:
            return mount(v, "the volumes are opened on trial")


def _trial(v: View) -> str:
    """These very PVCs, and the image that VDDK comes from."""
    image = vddk.image_for(v)
    return f"{v.trial}-{sha256(image.encode()).hexdigest()[:8]}" if image else v.trial


def mount(v: View, why: str) -> Move:
    """One pod for these very volumes; `why` it is waited for. A pod made for other PVCs, or with another VDDK, goes first."""
    if (held := vddk.missing(v)) is not None:
        return held
    binder, f = v.binder, v.frozen
    if binder is None:
        spec = BinderSpec(
            namespace=f.namespace,
            name=names.binder_name(v.record.run, v.record.slug),
            volumes=tuple((d.pvc, d.volume_mode) for d in f.disks),
            placement=f.placement,
            owner=v.owner,
            trial=_trial(v),
            wishes=v.pods,
            vddk_image=vddk.image_for(v),
        )
        return Do(EnsureBinder(v.key, f.destination, spec), "one pod mounts all disks in one place, and opens each as the copy will")
    if binder.deleting or binder.trial != _trial(v):
        return drop_binder(v)
    if binder.apart:
        remedy = (
            "map to a storage class with volumeBindingMode WaitForFirstConsumer, or to classes of one zone; then start another Migration"
        )
        return Fail("VolumesApart", f"no node can have all disks of {v.record.name}: {binder.apart}; {remedy}. The source was not touched")
    return Wait(f"{why}; binder pod {binder.name} is {binder.phase} {binder.message}".rstrip())


def _failed(v: View, binder: Binder) -> Move:
    result = result_of(binder)
    why = (result.error if result else "") or binder.message or binder.termination_message or f"exit code {binder.exit_code}"
    if result is not None and result.reason == VDDK_INVALID:
        again = f"Name another image and it is tried at once (or delete pod {binder.name}, to try the same again), or cancel this VM"
        text = f"VDDK cannot be used: {why}. {again}. The source was not touched"
        return Hold(VDDK_INVALID, "NotValid", text)
    classes = ", ".join(dict.fromkeys(f"{d.storage_class} ({d.volume_mode.value}, {d.access_mode})" for d in v.frozen.disks))
    where = f"volumes of storage class {classes} cannot be used: {why}"
    if binder.exit_code == EXIT_WRONG:
        reason = result.reason if result and result.reason else "VolumeNotUsable"
        return Fail(reason, f"{where}. Mend that, then start another Migration. The source was not touched")
    if binder.ended_at is None or v.now - binder.ended_at >= timedelta(seconds=PAUSE_S):
        return drop_binder(v)
    return Wait(f"{where}; another trial follows after {PAUSE_S:.0f} s")
