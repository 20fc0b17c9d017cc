"""Which target network each NIC of a VM gets, by its NetworkMap. Pure.

What it is: Forklift's matching rules with NAD pools, and what is wrong where they give no answer. What it is not: whether the NADs exist,
or which NIC model the guest can drive (core/targetvm.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.core import names
from reconciler.core.desired import NetworkPair
from reconciler.core.inventory import NamedItem, SourceNic, SourceVm
from reconciler.core.target import TargetNic

POD, MULTUS, IGNORED = "pod", "multus", "ignored"


@dataclass(frozen=True, slots=True)
class Unmapped:
    """Why a VM's NICs have no place to go. `type` is Forklift's condition type."""

    type: str
    message: str
    suggestion: str


def map_nics(
    vm: SourceVm, pairs: Sequence[NetworkPair], networks: Sequence[NamedItem], template: str = ""
) -> tuple[TargetNic, ...] | Unmapped:
    """Per NIC: the first entry that is not multus wins; else the first NAD this VM does not use yet; a single NAD is reused.

    networks: the site's, for entries that name a network by an alias (portgroup key). template: networkNameTemplate, "" the built-in one.
    Where a NAD pool has too few entries Forklift drops the NIC in silence; here that is Unmapped.
    Errors: UserError NotValid when the template fails.
    """
    known = {network.id: network for network in networks}
    nics: list[TargetNic] = []
    for nic in vm.nics:
        candidates = [pair for pair in pairs if _matches(pair, nic, known.get(nic.network_id))]
        pair = _choose(vm, nic, candidates, {other.network for other in nics})
        if isinstance(pair, Unmapped):
            return pair
        if pair.kind == POD and any(other.pod_network for other in nics):
            text = f"more than one NIC of {vm.name} goes to the pod network ({nic.network_name}); KubeVirt allows one"
            return Unmapped("VMMultiplePodNetworkMappings", text, "map the others to a NetworkAttachmentDefinition or to `ignored`")
        if pair.kind != IGNORED:
            nics.append(_target_nic(pair, nic, len(nics), template))
    return tuple(nics)


def _target_nic(pair: NetworkPair, nic: SourceNic, index: int, template: str) -> TargetNic:
    multus = pair.kind == MULTUS
    name = names.render_network_name(
        template,
        network_name=pair.name,
        network_namespace=pair.namespace,
        network_type="Multus" if multus else "Pod",
        network_index=index,
    )
    return TargetNic(name, nic.mac, "virtio", not multus, _full_name(pair) if multus else "")


def _choose(vm: SourceVm, nic: SourceNic, candidates: Sequence[NetworkPair], used: set[str]) -> NetworkPair | Unmapped:
    if not candidates:
        text = f"NIC {nic.mac} of {vm.name} is on network {nic.network_name} ({nic.network_id}), which the NetworkMap lacks"
        return Unmapped("VMNetworksNotMapped", text, "add the network to the map, with type `ignored` if the NIC is to be left out")
    if plain := [pair for pair in candidates if pair.kind != MULTUS]:
        return plain[0]
    if free := [pair for pair in candidates if _full_name(pair) not in used]:
        return free[0]
    if len(candidates) == 1:
        return candidates[0]
    text = f"{vm.name} has more NICs on {nic.network_name} than the {len(candidates)} NetworkAttachmentDefinitions mapped to it"
    return Unmapped("VMNetworksNotMapped", text, "map another NetworkAttachmentDefinition to that network")


def _full_name(pair: NetworkPair) -> str:
    return f"{pair.namespace}/{pair.name}"


def _matches(pair: NetworkPair, nic: SourceNic, network: NamedItem | None) -> bool:
    """An id wins over a name."""
    source = pair.source
    if source.id:
        return source.id == nic.network_id or (network is not None and source.id in network.aliases)
    return bool(source.name) and (source.name == nic.network_name or (network is not None and source.name == network.name))
