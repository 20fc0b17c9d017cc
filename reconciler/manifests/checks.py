"""What can be wrong inside one manifest beyond its schema. Forklift's rules and reasons where it has one (reference to them: its admission
webhooks and condition reasons); ours where a mistake would otherwise be found with the source switched off.

What it is: one generator per kind, all findings, no other document. What it is not: references between documents (resolve.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from reconciler.core import vddk
from reconciler.core.desired import InventoryRef, Problem, Severity
from reconciler.core.names import check_template
from reconciler.manifests import imageref
from reconciler.manifests.load import Document
from reconciler.manifests.schema.hook import Hook
from reconciler.manifests.schema.host import Host
from reconciler.manifests.schema.migration import Migration
from reconciler.manifests.schema.networkmap import NetworkMap
from reconciler.manifests.schema.plan import Plan, PlanSpec, PlanVm
from reconciler.manifests.schema.provider import Provider, ProviderSpec
from reconciler.manifests.schema.shapes import Model, Ref, is_label, is_subdomain
from reconciler.manifests.schema.storagemap import StorageMap

_ROOT_DISK = re.compile(r"/dev/sd[a-z][0-9]*", re.ASCII)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_TEMPLATES = {"pvc_name_template": "pvc", "volume_name_template": "volume", "network_name_template": "network"}
_NFS_EXPORT = re.compile(r"[^:]+:/[^:].*")
_AIO = "useVddkAioOptimization"
_WEB_PLATFORMS = ("vsphere", "ovirt", "openstack", "openshift", "nutanix")


def is_set(ref: Ref | InventoryRef) -> bool:
    return bool(ref.id or ref.name or ref.type)


def of_provider(doc: Document, model: Provider) -> Iterator[Problem]:
    spec = model.spec
    yield from _vddk(doc, spec)
    is_host = spec.type == "openshift" and not spec.url.strip()
    if not is_host and not spec.secret.name:
        yield doc.problem("spec.secret", "NotSet", "the secret with the credentials is not named", "write secret: {name: …, namespace: …}")
    if is_host:
        return
    wrong = _url_fault(spec.type, spec.url.strip())
    if wrong:
        yield doc.problem("spec.url", "Malformed", *wrong)


def _vddk(doc: Document, spec: ProviderSpec) -> Iterator[Problem]:
    """What Forklift lets pass and then does not use is a warning."""
    settings = spec.settings
    given = {"vddkInitImage": settings.vddk_init_image, "vddkConfig": settings.vddk_config, _AIO: settings.use_vddk_aio_optimization}
    if spec.type != "vsphere":
        for name in (name for name, value in given.items() if value):
            yield doc.problem(f"spec.settings.{name}", "WithoutEffect", f"{name} counts for vsphere only", "", Severity.WARNING)
        return
    if settings.vddk_init_image and (wrong := imageref.fault(settings.vddk_init_image)):
        yield doc.problem("spec.settings.vddkInitImage", "NotValid", *wrong)
    if settings.vddk_config and not vddk.switched_on(settings.use_vddk_aio_optimization):
        text = f"vddkConfig counts only with {_AIO}, as in Forklift"
        yield doc.problem("spec.settings.vddkConfig", "WithoutEffect", text, f'add {_AIO}: "true"', Severity.WARNING)


def _url_fault(platform: str, url: str) -> tuple[str, str] | None:
    """The url itself is never repeated in a message: it may hold a password."""
    if not url:
        return "the url is empty", "only the openshift provider that is this cluster has none"
    if platform == "ova":
        return None if _NFS_EXPORT.fullmatch(url) else ("is not an NFS export", "write server:/path")
    if platform not in _WEB_PLATFORMS:
        return None
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return "is not a URL", "for example https://vcenter.example.net/sdk"
    if parts.username is not None or parts.password is not None:
        return "has user info in it; credentials never belong in git", "remove it, change the password, and use the secret"
    schemes = ("http", "https") if platform == "openstack" else ("https",)
    if parts.scheme not in schemes or not parts.hostname or not port_ok or re.search(r"\s", url):
        return "is not an https URL with a host", "for example https://vcenter.example.net/sdk"
    if parts.query or parts.fragment:
        return "must not have a query or a fragment", "remove what follows the path"
    return None


def of_host(doc: Document, model: Host) -> Iterator[Problem]:
    if not is_set(model.spec):
        yield doc.problem("spec", "NotSet", "neither id nor name of the ESXi host is given")
    for name in ("provider", "secret"):
        if not getattr(model.spec, name).name:
            yield doc.problem(f"spec.{name}", "NotSet", f"the {name} is not named")


def of_network_map(doc: Document, model: NetworkMap) -> Iterator[Problem]:
    for index, entry in enumerate(model.spec.map):
        path = f"spec.map[{index}]"
        if not is_set(entry.source):
            yield doc.problem(f"{path}.source", "NotSet", "the source network has neither id, name nor type")
        if entry.source.vlan is not None:
            yield doc.problem(f"{path}.source.vlan", "WithoutEffect", "vlan counts for Hyper-V sources only", "", Severity.WARNING)
        if entry.destination.type == "multus":
            for name in ("namespace", "name"):
                if not getattr(entry.destination, name):
                    yield doc.problem(f"{path}.destination", "Ambiguous", f"multus needs the {name} of the NetworkAttachmentDefinition")


def of_storage_map(doc: Document, model: StorageMap) -> Iterator[Problem]:
    first: dict[InventoryRef, int] = {}
    for index, entry in enumerate(model.spec.map):
        path = f"spec.map[{index}]"
        source = InventoryRef(entry.source.id, entry.source.name, entry.source.namespace, entry.source.type)
        if not is_set(source):
            yield doc.problem(f"{path}.source", "NotSet", "the source storage has neither id nor name")
        elif first.setdefault(source, index) != index:
            message = f"the same source as map[{first[source]}]; only the first one counts"
            yield doc.problem(f"{path}.source", "NotUnique", message, "", Severity.WARNING)
        if not is_subdomain(entry.destination.storage_class):
            yield doc.problem(f"{path}.destination.storageClass", "NotValid", "is not the name of a storage class (DNS-1123)")
        plugin = entry.offload_plugin
        if plugin and (plugin.vsphere_xcopy_config is None) == (plugin.csi_volume_import is None):
            yield doc.problem(f"{path}.offloadPlugin", "NotValid", "needs exactly one of vsphereXcopyConfig and csiVolumeImport")


def of_migration(doc: Document, model: Migration) -> Iterator[Problem]:
    for index, ref in enumerate(model.spec.cancel):
        if not is_set(ref):
            yield doc.problem(f"spec.cancel[{index}]", "NotSet", "neither id nor name of the VM is given")
    seen: set[str] = set()
    for index, one in enumerate(model.spec.vm_cutover):
        if one.id in seen:
            yield doc.problem(f"spec.vmCutover[{index}].id", "NotUnique", f"{one.id} has a cutover already")
        seen.add(one.id)


def of_hook(doc: Document, model: Hook) -> Iterator[Problem]:
    spec = model.spec
    if spec.aap and (spec.image or spec.playbook):
        yield doc.problem("spec.aap", "NotValid", "aap does not go together with image or playbook")
    if not spec.aap and not spec.image:
        yield doc.problem("spec", "NotSet", "needs an image or aap")
    try:
        base64.b64decode(re.sub(r"\s", "", spec.playbook), validate=True)
    except (binascii.Error, ValueError):
        yield doc.problem("spec.playbook", "DataError", "is not base64", "base64 -w0 playbook.yml")


def of_plan(doc: Document, model: Plan) -> Iterator[Problem]:
    spec = model.spec
    if not is_label(spec.target_namespace):
        yield doc.problem("spec.targetNamespace", "NotValid", "is not a namespace name (DNS-1123 label)")
    if not spec.vms:
        yield doc.problem("spec.vms", "NotSet", "no VM is listed", "", Severity.WARNING)
    if bool(spec.conversion_temp_storage_class) != bool(spec.conversion_temp_storage_size):
        yield doc.problem("spec.conversionTempStorageClass", "NotValid", "conversionTempStorageClass and …Size go together")
    for field in ("target_labels", "target_node_selector"):
        yield from _labels(doc, f"spec.{type(spec).model_fields[field].alias}", getattr(spec, field))
    yield from _templates(doc, "spec", spec)
    for index, vm in enumerate(spec.vms):
        yield from _vm(doc, f"spec.vms[{index}]", vm)
    yield from _same_vm(doc, spec)
    yield from _same_target(doc, spec)


def _templates(doc: Document, path: str, block: Model) -> Iterator[Problem]:
    for field, kind in _TEMPLATES.items():
        text = getattr(block, field)
        wrong = check_template(text, kind) if text else None
        if wrong:
            yield doc.problem(f"{path}.{type(block).model_fields[field].alias}", "NotValid", wrong)


def _vm(doc: Document, path: str, vm: PlanVm) -> Iterator[Problem]:
    if not is_set(vm):
        yield doc.problem(path, "NotSet", "the VM has neither id nor name")
    if vm.target_name and not is_subdomain(vm.target_name):
        hint = "lower-case letters, digits, '-' and '.'; leave it out to have a name made"
        yield doc.problem(f"{path}.targetName", "NotValid", "is not a DNS-1123 name", hint)
    if vm.instance_type and not is_subdomain(vm.instance_type):
        yield doc.problem(f"{path}.instanceType", "NotValid", "is not the name of an instance type (DNS-1123)")
    if vm.root_disk and not _ROOT_DISK.fullmatch(vm.root_disk):
        message = "is no Linux device, so the first disk is taken"
        yield doc.problem(f"{path}.rootDisk", "NotValid", message, "for example /dev/sda", Severity.WARNING)
    yield from _templates(doc, path, vm)


def _same_vm(doc: Document, spec: PlanSpec) -> Iterator[Problem]:
    """The same id twice; or the same name, unless both have ids and those differ."""
    by_id: dict[str, int] = {}
    by_name: dict[tuple[str, str], int] = {}
    for index, vm in enumerate(spec.vms):
        other = by_id.setdefault(vm.id, index) if vm.id else index
        if other == index and vm.name:
            named = by_name.setdefault((vm.namespace, vm.name), index)
            other = named if not (vm.id and spec.vms[named].id) else index
        if other != index:
            yield doc.problem(f"spec.vms[{index}]", "NotUnique", f"the same VM as {doc.place(f'spec.vms[{other}]')}", "list it once")


def _same_target(doc: Document, spec: PlanSpec) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, vm in enumerate(spec.vms):
        if vm.target_name and first.setdefault(vm.target_name, index) != index:
            other = doc.place(f"spec.vms[{first[vm.target_name]}]")
            yield doc.problem(f"spec.vms[{index}].targetName", "NotUnique", f'"{vm.target_name}" is the target name at {other} already')


def _labels(doc: Document, path: str, labels: dict[str, str]) -> Iterator[Problem]:
    """Kubernetes' rules for label keys and values: a wrong one would be refused when the target VM is made."""
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (slash and not is_subdomain(prefix)):
            yield doc.problem(f"{path}.{key}", "NotValid", "is not a Kubernetes label key")
        if not _LABEL_VALUE.fullmatch(value):
            yield doc.problem(f"{path}.{key}", "NotValid", "is not a Kubernetes label value: at most 63 letters, digits, '-', '_' and '.'")
