"""Every name we give: PVCs, volumes, NICs, target VMs, Jobs, record files, labels. Legal, deterministic, distinct for distinct things.

What it is: pure functions over Forklift's templates and Kubernetes' rules for names. What it is not: a registry; whether a name is taken
is asked through a callable. Nothing here is random: a crash and a second try give the same names, so nothing is made twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from reconciler.core.gotemplate import TemplateError
from reconciler.core.model import ObjectRef
from reconciler.core.sprig import Value
from reconciler.core.templateparse import parse
from reconciler.errors import UserError

DEFAULT_PVC_TEMPLATE = "{{trunc 15 .PlanName}}-{{trunc 15 .TargetVmName}}-disk-{{.DiskIndex}}"
DEFAULT_VOLUME_TEMPLATE = "vol-{{.VolumeIndex}}"
DEFAULT_NETWORK_TEMPLATE = "net-{{.NetworkIndex}}"

LABEL_MAX = 63
SUBDOMAIN_MAX = 253
JOB_MAX = 52  # a Job's pods add up to 11 characters, and their name is a label
_ALPHABET = "bcdfghjkmnpqrstvwxz2456789"  # no vowels, so no words
_SUFFIX = 8
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?", re.ASCII)

_SAMPLES: Mapping[str, Mapping[str, Value]] = {
    "pvc": {
        "VmName": "test-vm",
        "TargetVmName": "test-target-vm",
        "PlanName": "test-plan",
        "VmId": "vm-0000",
        "DiskIndex": 0,
        "FileName": "test-vm.vmdk",
        "WinDriveLetter": "c",
        "Shared": False,
        "RootDiskIndex": 1,
    },
    "volume": {"PVCName": "test-pvc", "VolumeIndex": 0},
    "network": {
        "NetworkName": "test-network",
        "NetworkNamespace": "test-namespace",
        "NetworkType": "Multus",
        "NetworkIndex": 0,
    },
}


# ---- rules ----------------------------------------------------------------------------------------------------------------------------


def is_dns1123_label(text: str) -> bool:
    return len(text) <= LABEL_MAX and _LABEL.fullmatch(text) is not None


def is_dns1123_subdomain(text: str) -> bool:
    """Dot-separated labels; Kubernetes limits the whole, not the single part."""
    return len(text) <= SUBDOMAIN_MAX and all(_LABEL.fullmatch(part) for part in text.split("."))


def short_hash(text: str, n: int) -> str:
    """`n` (at most 50) characters out of SHA-256, lower-case letters and digits, about 4.7 bits each."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    out = []
    for _ in range(n):
        number, digit = divmod(number, len(_ALPHABET))
        out.append(_ALPHABET[digit])
    return "".join(out)


def label_value(text: str) -> str:
    """A Kubernetes label value: `text` itself where that is legal, else what is legal of it and a hash of the whole."""
    if len(text) <= LABEL_MAX and _LABEL_VALUE.fullmatch(text):
        return text
    rest = re.sub(r"[^A-Za-z0-9]+", "-", text)[: LABEL_MAX - 13].strip("-")
    digest = short_hash(text, 12)
    return f"{rest}-{digest}" if rest else digest


# ---- templates ------------------------------------------------------------------------------------------------------------------------


def check_template(text: str, kind: str) -> str | None:
    """What is wrong with a name template of `kind` pvc, volume or network, for a person; None: nothing.

    Tried with the sample data that Forklift validates with: RootDiskIndex 1, Shared false, PVCName test-pvc, and so on.
    """
    sample = _SAMPLES[kind]
    try:
        result = parse(text, frozenset(sample)).render(sample)
    except TemplateError as err:
        return str(err)
    if kind == "pvc":
        result = result.strip().removesuffix("-")
    if not result:
        return "the template gives an empty name"
    if not is_dns1123_label(result):
        return f"the template gives {result!r}, which is no DNS-1123 label (a-z, 0-9 and -, at most {LABEL_MAX} characters)"
    return None


@lru_cache(maxsize=1 << 15)  # of each VM that waits, in each pass
def render_pvc_name(
    template: str,
    *,
    vm_name: str,
    target_vm_name: str,
    plan_name: str,
    vm_id: str,
    disk_index: int,
    file_name: str,
    win_drive_letter: str,
    shared: bool,
    root_disk_index: int,
    generate_name: bool,
    hash_of: str,
) -> str:
    """The PVC's name, a DNS-1123 label. An empty template is Forklift's built-in one.

    generate_name: a hash of `hash_of` (the disk's full identity) stands where Forklift's generateName would put random characters.
    Errors: UserError NotValid when the template fails with this VM's data.
    """
    data: dict[str, Value] = {
        "VmName": vm_name if re.search(r"[A-Za-z0-9]", vm_name) else vm_id or "vm-0000",
        "TargetVmName": target_vm_name,
        "PlanName": plan_name,
        "VmId": vm_id,
        "DiskIndex": disk_index,
        "FileName": file_name,
        "WinDriveLetter": win_drive_letter.lower(),
        "Shared": shared,
        "RootDiskIndex": root_disk_index,
    }
    text = _render(template or DEFAULT_PVC_TEMPLATE, data).strip()
    if generate_name:
        prefix = _legal(text)[: LABEL_MAX - _SUFFIX - 1].strip("-")
        return "-".join(part for part in (prefix, short_hash(hash_of, _SUFFIX)) if part)
    return _label(text.removesuffix("-"), hash_of)


def render_volume_name(template: str, *, pvc_name: str, volume_index: int) -> str:
    """The name of a disk inside the VM. Errors: UserError NotValid."""
    text = _render(template or DEFAULT_VOLUME_TEMPLATE, {"PVCName": pvc_name, "VolumeIndex": volume_index})
    return _label(text, f"{pvc_name}/{volume_index}")


def render_network_name(template: str, *, network_name: str, network_namespace: str, network_type: str, network_index: int) -> str:
    """The name of a NIC inside the VM; all about the target network. `network_type` is Multus or Pod. Errors: UserError NotValid."""
    data: dict[str, Value] = {
        "NetworkName": network_name,
        "NetworkNamespace": network_namespace,
        "NetworkType": network_type,
        "NetworkIndex": network_index,
    }
    text = _render(template or DEFAULT_NETWORK_TEMPLATE, data)
    return _label(text, f"{network_namespace}/{network_name}/{network_index}")


_parse = lru_cache(maxsize=256)(parse)  # the few templates of the plans, for each VM that waits and in each pass


def _render(template: str, data: Mapping[str, Value]) -> str:
    try:
        return _parse(template, frozenset(data)).render(data)
    except TemplateError as err:
        raise UserError("NotValid", f"name template {template!r}: {err}") from err


def _legal(text: str) -> str:
    """What a DNS-1123 label may hold of `text`, of any length; may be empty."""
    return re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]+", "-", text.lower())).strip("-")


def _label(text: str, hash_of: str) -> str:
    """`text` if it is a label already; else made legal, with a hash, so that two illegal texts do not meet in one name."""
    if is_dns1123_label(text):
        return text
    return _join(_legal(text), short_hash(f"{hash_of}\n{text}", _SUFFIX), LABEL_MAX)


def _join(prefix: str, suffix: str, limit: int) -> str:
    cut = prefix[: limit - len(suffix) - 1].rstrip("-.")
    return f"{cut}-{suffix}" if cut else suffix


# ---- target VM ------------------------------------------------------------------------------------------------------------------------


def normalized(name: str) -> str:
    """Forklift's change of a VM name into a DNS-1123 subdomain; empty when no letter or digit is left."""
    parts = []
    for part in name.lower().strip(".-").split("."):
        kept = re.sub(r"[^a-z0-9-]", "", re.sub(r"[_+*\s/\\]", "-", part))
        parts.append(re.sub(r"-+", "-", kept)[:LABEL_MAX].strip("-"))
    return ".".join(p for p in parts if p)[:SUBDOMAIN_MAX].rstrip("-.")


def target_vm_name(source_name: str, target_name: str, *, taken: Callable[[str], bool], hash_of: str) -> str:
    """The VM's name on the target: `target_name` as it is, else the source's name, made legal, and free by `taken`.

    A taken name is cut to 58 characters and gets a hash of `hash_of` (the VM's full identity) in place of Forklift's random suffix.
    Errors: UserError NotValid for a `target_name` that is no DNS-1123 subdomain. Whether it is free is for the plan's validation to say.
    """
    if target_name:
        if not is_dns1123_subdomain(target_name):
            raise UserError("NotValid", f"targetName {target_name!r} is no DNS-1123 subdomain (a-z, 0-9, - and .)")
        return target_name
    name = source_name if is_dns1123_subdomain(source_name) else normalized(source_name)
    if not name:
        name = f"vm-{short_hash(hash_of, 4)}"
    tried = 0
    wanted = name
    while taken(name):
        salt = f"{hash_of}\n{tried}" if tried else hash_of
        name = f"{wanted[:58].rstrip('-.')}-{short_hash(salt, 4 if tried < 10 else 12)}"
        tried += 1
        if tried > 100:
            raise UserError("DuplicateVM", f"no free name for VM {source_name!r}; set targetName")
    return name


# ---- records and objects --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 15)
def vm_slug(name: str, identity: str) -> str:
    """File name (without suffix) of a VM's record: `web-01-3f9c2a1b`. Never empty, a safe path component, a DNS-1123 label."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    start = normalized(name).replace(".", "-")[:40].strip("-")
    return f"{start or 'vm'}-{digest}"


def job_name(run: ObjectRef | str, slug: str, round: str, attempt: int) -> str:
    """Name of the importer Job of one VM, round (a word such as `r1`) and attempt; never used twice."""
    return _object_name("copy", run, slug, f"-{_legal(round)[:16]}-a{attempt}", round)


def binder_name(run: ObjectRef | str, slug: str) -> str:
    """Name of the pod that makes the PVCs of one VM bind."""
    return _object_name("bind", run, slug, "", "")


def _object_name(role: str, run: ObjectRef | str, slug: str, tail: str, salt: str) -> str:
    digest = short_hash("\n".join((str(run), slug, role, tail, salt)), _SUFFIX)
    shown = re.sub(r"-[0-9a-f]{8}$", "", slug)
    return _join(f"{role}-{_legal(shown)}", f"{digest}{tail}", JOB_MAX)
