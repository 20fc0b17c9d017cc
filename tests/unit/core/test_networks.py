"""NetworkMap -> NICs: matching by id, alias and name; pools, ignored, one pod network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.desired import InventoryRef, NetworkPair
from reconciler.core.inventory import NamedItem, SourceNic
from reconciler.core.networks import Unmapped, map_nics
from tests.unit.core.test_targetvm import source

NETWORKS = (NamedItem("network-1", "VM Network"), NamedItem("dvportgroup-2", "db", aliases=("dvportgroup-key-2",)))


def nic(n: int, network_id: str = "network-1", name: str = "VM Network") -> SourceNic:
    return SourceNic(str(4000 + n), f"00:50:56:00:00:0{n}", network_id, name, "vmxnet3")


def nad(nad_name: str, /, **source_ref: str) -> NetworkPair:
    return NetworkPair(InventoryRef(**(source_ref or {"id": "network-1"})), "multus", "nets", nad_name)


def pod(**source_ref: str) -> NetworkPair:
    return NetworkPair(InventoryRef(**(source_ref or {"id": "network-1"})), "pod")


def mapped(nics: tuple[SourceNic, ...], pairs: list[NetworkPair], template: str = "") -> list[tuple[str, str, str]]:
    found = map_nics(source(nics=nics), pairs, NETWORKS, template)
    assert not isinstance(found, Unmapped), found
    return [(n.name, n.mac[-1], "pod" if n.pod_network else n.network) for n in found]


def refused(nics: tuple[SourceNic, ...], pairs: list[NetworkPair]) -> Unmapped:
    found = map_nics(source(nics=nics), pairs, NETWORKS)
    assert isinstance(found, Unmapped)
    return found


@pytest.mark.parametrize(
    "ref", [{"id": "dvportgroup-2"}, {"id": "dvportgroup-key-2"}, {"name": "db"}, {"id": "dvportgroup-2", "name": "some other name"}]
)
def test_an_entry_matches_by_id_by_alias_or_by_name(ref: dict[str, str]) -> None:
    assert mapped((nic(1, "dvportgroup-2", "db"),), [nad("db", **ref)]) == [("net-0", "1", "nets/db")]


def test_an_id_wins_over_a_name_that_would_match() -> None:
    assert refused((nic(1),), [nad("a", id="network-9", name="VM Network")]).type == "VMNetworksNotMapped"


def test_a_nic_on_an_unmapped_network_is_named() -> None:
    problem = refused((nic(1), nic(2, "network-7", "lost")), [pod()])
    assert problem.type == "VMNetworksNotMapped"
    assert "lost" in problem.message
    assert "network-7" in problem.message


def test_ignored_nics_vanish_and_names_count_the_targets_nics() -> None:
    pairs = [NetworkPair(InventoryRef(id="network-1"), "ignored"), pod(id="dvportgroup-2")]
    assert mapped((nic(1), nic(2, "dvportgroup-2", "db")), pairs) == [("net-0", "2", "pod")]


def test_the_pod_network_takes_one_nic() -> None:
    assert refused((nic(1), nic(2)), [pod()]).type == "VMMultiplePodNetworkMappings"


def test_a_pool_gives_each_nic_its_own_nad_and_says_so_when_it_is_empty() -> None:
    pool = [nad("a"), nad("b")]
    assert mapped((nic(1), nic(2)), pool) == [("net-0", "1", "nets/a"), ("net-1", "2", "nets/b")]
    assert "2 NetworkAttachmentDefinitions" in refused((nic(1), nic(2), nic(3)), pool).message


def test_a_single_nad_is_reused_and_the_first_plain_entry_beats_a_pool() -> None:
    assert mapped((nic(1), nic(2)), [nad("a")]) == [("net-0", "1", "nets/a"), ("net-1", "2", "nets/a")]
    assert mapped((nic(1),), [nad("a"), pod(), nad("b")]) == [("net-0", "1", "pod")]


def test_names_follow_the_template() -> None:
    template = "{{.NetworkType | lower}}-{{.NetworkName}}-{{.NetworkIndex}}"
    assert mapped((nic(1),), [nad("a")], template) == [("multus-a-0", "1", "nets/a")]


def test_macs_are_kept_as_they_are() -> None:
    vm = source(nics=(replace(nic(1), mac="00:50:56:ab:cd:ef"),))
    found = map_nics(vm, [pod()], NETWORKS)
    assert not isinstance(found, Unmapped)
    assert found[0].mac == "00:50:56:ab:cd:ef"
