"""The contract between the reconciler and its copy pod: spec in, progress lines and a result out. Versioned, with JSON forms.

Where it stands: written by drivers/kubevirt (into a Secret, it holds no secret itself), read by worker.py; the lines come back through
the pod's log and termination message and are read by drivers/kubevirt. Pure: json only.
Units: bytes, seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from reconciler.core.ranges import Range, pack, unpack

VERSION = 1
EXIT_DONE, EXIT_WRONG, EXIT_AGAIN = 0, 65, 75
VDDK_INVALID = "VDDKInvalid"  # reason of a trial that could not load the library; Forklift's name
TERMINATION_LIMIT_BYTES = 4096  # Kubernetes cuts a termination message there
RANGE_GAP_BYTES = 64 << 10  # `ranges.limit(changes, RANGES_OF_A_JOB, RANGE_GAP_BYTES)` is what goes into a Job's disks
RANGES_OF_A_JOB = 65_536  # all disks together: some 300 KiB in the spec, 800 KiB at worst; a Secret may have 1 MiB


class Reader(StrEnum):
    """One class per transport in drivers/*/disks.py or wire/."""

    HTTP_RANGE = "http-range"
    IMAGEIO = "imageio"
    GLANCE = "glance"
    VMDK_STREAM = "vmdk-stream"
    NBD = "nbd"


class Verify(StrEnum):
    NONE = "none"
    READBACK = "readback"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How the worker trusts its endpoints. Without any of these: the system roots. `insecure` only if the manifest said so."""

    ca_file: str | None = None  # path inside the pod
    thumbprint: str | None = None  # SHA-1 or SHA-256, hex with colons
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class CopyDisk:
    """One disk. `target` is a path inside the pod: a directory's disk.img for Filesystem, the device for Block.

    resume_bytes: the proven prefix of this round; what lies behind is copied again, without assuming zeros there.
    compare:      the target may hold right bytes already: read both, write what differs, zero what must be zero.
    ranges:       a delta round: only these (offset, length) are read and written, all else of the target is kept. Normal form of
                  core/ranges. None = the whole disk; () = nothing to do. What is zero in them is made zero.
    trial:        below a running guest, where it is not known whether the file can be opened: a refusal is told at once.
    check:        the stretches (offset, length) that are compared with the source after the copy, in normal form, whatever `verify`
                  says. None = what `verify` says: with `source` the whole disk.
    check_copied: so is all that this round copies.
    """

    uuid: str
    label: str
    reader: Reader
    url: str
    capacity_bytes: int
    target: str
    block: bool
    resume_bytes: int = 0
    compare: bool = False
    ranges: tuple[Range, ...] | None = None
    check: tuple[Range, ...] | None = None
    check_copied: bool = False
    trial: bool = False

    @property
    def kept_bytes(self) -> int:
        """The target must have at least these bytes already: something in front of their end is neither copied nor made zero."""
        if self.ranges is None:
            return self.resume_bytes
        at = self.capacity_bytes
        if self.ranges and sum(self.ranges[-1]) == at:
            at = self.ranges[-1][0]
        return max(self.resume_bytes, at)


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """A lease on a VM or one of its snapshots that the worker opens, keeps alive and ends. It gives the disks in `devices` their URLs.

    devices:  (disk uuid, key of the virtual device), one for each disk of the spec.
    """

    url: str  # of the vCenter or ESXi host, https://host/sdk; trusted as the spec's `tls` says
    esxi: bool
    site_uuid: str
    vm: str  # managed object ids
    vm_uuid: str  # instanceUuid, checked before the lease is asked for
    name: str
    snapshot: str | None  # None: the VM itself, powered off
    devices: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class VddkSpec:
    """VDDK reads the disks in `files`: their reader is NBD, their url "" until the worker has started an nbdkit for each.

    files:   (disk uuid, `[datastore] folder/disk.vmdk`): with a snapshot the file that was the disk's when it was made.
    libdir:  where the pod has VDDK; filled in with the Job, like the paths of the disks.
    config:  text of a VDDK configuration file.
    plugin:  the plugin's name, or its path.
    """

    url: str  # of the vCenter or ESXi host, https://host/sdk; trusted as the spec's `tls` says
    vm: str  # managed object ids
    snapshot: str | None
    files: tuple[tuple[str, str], ...]
    libdir: str = ""
    transports: str | None = "nbdssl:nbd"
    config: str = ""
    plugin: str = "vddk"


@dataclass(frozen=True, slots=True)
class CopySpec:
    run: str
    vm: str
    round_key: str
    disks: tuple[CopyDisk, ...]
    tls: TlsSpec
    credentials_dir: str  # files `user` and `password` (or `cookie`), mounted from a Secret; never in this spec
    verify: Verify = Verify.READBACK
    connections: int = 4
    request_bytes: int = 1 << 20
    bandwidth_bytes_per_s: int | None = None  # of the whole Job
    termination_file: str = "/dev/termination-log"
    export: ExportSpec | None = None
    vddk: VddkSpec | None = None

    def to_json(self) -> str:
        raw = asdict(replace(self, disks=tuple(replace(d, ranges=None) for d in self.disks)))
        for out, disk in zip(raw["disks"], self.disks, strict=True):
            out["ranges"] = None if disk.ranges is None else pack(disk.ranges)
        return json.dumps({"version": VERSION, **raw}, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CopySpec:
        """Errors: ValueError for another version, a missing or an unknown field."""
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.pop("version", None) != VERSION:
            raise ValueError(f"copy spec is not version {VERSION}")
        try:
            disks = tuple(_disk(d) for d in raw.pop("disks"))
            tls = TlsSpec(**raw.pop("tls"))
            export, vddk = _export(raw.pop("export", None)), _vddk(raw.pop("vddk", None))
            return cls(**{**raw, "disks": disks, "tls": tls, "verify": Verify(raw["verify"]), "export": export, "vddk": vddk})
        except (TypeError, KeyError) as err:
            raise ValueError(f"copy spec: {err}") from err


def _disk(raw: dict[str, Any]) -> CopyDisk:
    ranges, check = raw.get("ranges"), raw.get("check")
    return CopyDisk(
        **{
            **raw,
            "reader": Reader(raw["reader"]),
            "ranges": None if ranges is None else unpack(ranges),
            "check": None if check is None else tuple((int(offset), int(length)) for offset, length in check),
        }
    )


def _export(raw: dict[str, Any] | None) -> ExportSpec | None:
    return None if raw is None else ExportSpec(**{**raw, "devices": tuple((str(uuid), int(key)) for uuid, key in raw["devices"])})


def _vddk(raw: dict[str, Any] | None) -> VddkSpec | None:
    return None if raw is None else VddkSpec(**{**raw, "files": tuple((str(uuid), str(file)) for uuid, file in raw["files"])})


@dataclass(frozen=True, slots=True)
class DiskProgress:
    """`done_bytes` counts source bytes dealt with (copied + skipped as zero), 0 … `total_bytes`, which is the capacity, or in a delta round
    the sum of its ranges. `watermark_bytes` is a position in the disk (capacity when all is done): what this round had to do below it is
    flushed and proven.

    `verified_bytes`: how much the second read (`verify: source`, or `check`) has compared; it begins when all disks are copied.
    """

    uuid: str
    total_bytes: int
    done_bytes: int
    zeroed_bytes: int
    watermark_bytes: int
    rate_bytes_per_s: float
    verified_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DiskResult:
    """What one disk came to. `readback` is "ok", "no-direct-io: …" (cache could not be passed) or "off".

    `verified_bytes`: how much a second read of the source compared with the target; `sha256` is there when that was the whole disk.
    `mismatch`: it found them to differ. `done` says that all that was asked for is copied, flushed and proven.
    """

    uuid: str
    done: bool
    read_bytes: int
    written_bytes: int
    zeroed_bytes: int
    ranges: int
    seconds: float
    reader: str
    readback: str
    crc32c: str | None = None
    sha256: str | None = None
    verified_bytes: int = 0
    mismatch: bool = False


@dataclass(frozen=True, slots=True)
class CopyResult:
    disks: tuple[DiskResult, ...]
    error: str | None = None  # reason: message, redacted
    reason: str | None = None

    @property
    def done(self) -> bool:
        return self.error is None and all(d.done for d in self.disks)


def progress_line(disks: tuple[DiskProgress, ...]) -> str:
    return json.dumps({"type": "progress", "disks": [asdict(d) for d in disks]}, separators=(",", ":"))


def result_line(result: CopyResult) -> str:
    return json.dumps({"type": "result", **asdict(result)}, separators=(",", ":"))


def parse_line(line: str) -> tuple[DiskProgress, ...] | CopyResult | None:
    """One line of a copy pod's log; None for anything that is not ours (a half line, a traceback)."""
    try:
        raw = json.loads(line)
        if not isinstance(raw, dict):
            return None
        if raw.get("type") == "progress":
            return tuple(DiskProgress(**d) for d in raw["disks"])
        if raw.get("type") == "result":
            disks = tuple(DiskResult(**d) for d in raw["disks"])
            return CopyResult(disks, raw.get("error"), raw.get("reason"))
    except (ValueError, TypeError, KeyError):
        return None
    return None
