"""Names: Forklift's rules by example; legal, deterministic and distinct by property."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import names
from reconciler.core.model import ObjectRef
from reconciler.errors import UserError

RUN = ObjectRef("openshift-mtv", "shop-wave-1-go")
NASTY = st.text(max_size=90) | st.from_regex(r"[A-Za-z0-9 ._\-/]{0,90}", fullmatch=True)
IDS = st.text(min_size=1, max_size=40)


def pvc(template: str = "", generate: bool = True, hash_of: str = "site/vm/disk", **changes: object) -> str:
    data: dict[str, object] = {
        "vm_name": "Web 01",
        "target_vm_name": "web-01",
        "plan_name": "shop-wave-1",
        "vm_id": "vm-1042",
        "disk_index": 0,
        "file_name": "web01_1.vmdk",
        "win_drive_letter": "C",
        "shared": False,
        "root_disk_index": 0,
    } | changes
    return names.render_pvc_name(template, generate_name=generate, hash_of=hash_of, **data)  # type: ignore[arg-type]


# ---- templates ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("pvc", names.DEFAULT_PVC_TEMPLATE),
        ("pvc", "{{trunc 20 .TargetVmName}}-{{if eq .DiskIndex .RootDiskIndex}}root{{else}}d{{.DiskIndex}}{{end}}"),
        ("pvc", '{{.FileName | trimSuffix ".vmdk" | replace "_" "-" | lower}}'),
        ("pvc", "  {{.VmId}}-  "),
        ("volume", names.DEFAULT_VOLUME_TEMPLATE),
        ("volume", "{{.PVCName}}"),
        ("network", names.DEFAULT_NETWORK_TEMPLATE),
        ("network", "{{lower .NetworkType}}-{{.NetworkIndex}}"),
    ],
)
def test_good_templates(kind: str, template: str) -> None:
    assert names.check_template(template, kind) is None


@pytest.mark.parametrize(
    ("kind", "template", "part"),
    [
        ("pvc", "{{.VmName | upper}}", "'TEST-VM', which is no DNS-1123 label"),
        ("pvc", "{{if .Shared}}x{{end}}", "empty name"),
        ("pvc", "{{.PVCName}}", "no variable .PVCName"),
        ("pvc", "x" * 64, "no DNS-1123 label"),
        ("volume", "{{.VmName}}", "no variable .VmName; available are .PVCName, .VolumeIndex"),
        ("volume", " vol", "' vol', which is no DNS-1123 label"),
        ("network", "{{.NetworkType}}", "'Multus'"),
    ],
)
def test_bad_templates(kind: str, template: str, part: str) -> None:
    assert part in (names.check_template(template, kind) or "")


def test_generate_name_ends_in_a_hash_of_the_disk() -> None:
    assert re.fullmatch(r"shop-wave-1-web-01-disk-0-[a-z0-9]{8}", pvc())
    assert pvc() == pvc() != pvc(hash_of="site/vm/disk-2")
    assert len(pvc("x" * 63)) == 63


def test_exact_names_stay_as_they_are() -> None:
    assert pvc("{{.TargetVmName}}-{{.DiskIndex}}", generate=False) == "web-01-0"
    assert pvc("{{.TargetVmName}}-", generate=False) == "web-01"
    assert pvc("drive-{{.WinDriveLetter}}", generate=False) == "drive-c"


def test_a_vm_name_without_letters_gives_way_to_its_id() -> None:
    assert pvc("{{.VmName}}", generate=False, vm_name="※※") == "vm-1042"


def test_a_template_that_fails_with_real_data_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"NotValid: .*substr: start"):
        pvc("{{substr 3 2 .VmName}}")


def test_volumes_and_networks() -> None:
    assert names.render_volume_name("", pvc_name="web-01-0", volume_index=1) == "vol-1"
    assert names.render_volume_name("disk-{{.PVCName}}", pvc_name="web-01-0", volume_index=1) == "disk-web-01-0"
    network = {"network_name": "vlan10", "network_namespace": "nets", "network_type": "Multus", "network_index": 0}
    assert names.render_network_name("", **network) == "net-0"  # type: ignore[arg-type]
    assert names.render_network_name("{{.NetworkNamespace}}-{{.NetworkName}}", **network) == "nets-vlan10"  # type: ignore[arg-type]


@given(NASTY, NASTY, st.booleans(), IDS)
def test_rendered_names_are_labels(vm_name: str, target: str, generate: bool, hash_of: str) -> None:
    for template in ("", "{{.VmName}}", "{{.VmName}}.{{.TargetVmName}}-{{.DiskIndex}}", "{{.FileName}}"):
        name = pvc(template, generate, hash_of, vm_name=vm_name, target_vm_name=target, file_name=vm_name)
        assert names.is_dns1123_label(name)
    assert names.is_dns1123_label(names.render_volume_name("{{.PVCName}}", pvc_name=vm_name, volume_index=0))


@given(st.lists(IDS, min_size=2, max_size=20, unique=True))
def test_other_disks_get_other_names(ids: list[str]) -> None:
    assert len({pvc("same", True, i) for i in ids}) == len(ids)
    assert len({pvc("not_legal", False, i) for i in ids}) == len(ids)


# ---- target VM ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("web-01", "web-01"),
        ("web.shop.example", "web.shop.example"),
        ("Web_01 (prod)", "web-01-prod"),
        ("-.App+Server/A\\B*.-", "app-server-a-b"),
        ("a..b.--.c", "a.b.c"),
        ("a__--__b", "a-b"),
        ("Ünïcode", "ncode"),
        ("X" * 70, "x" * 63),
    ],
)
def test_target_name_from_the_source(source: str, name: str) -> None:
    assert names.target_vm_name(source, "", taken=lambda _: False, hash_of="1") == name


def test_target_name_wins_and_must_be_legal() -> None:
    assert names.target_vm_name("Web", "other.name", taken=lambda _: True, hash_of="1") == "other.name"
    with pytest.raises(UserError, match="targetName 'Not_Legal'"):
        names.target_vm_name("web", "Not_Legal", taken=lambda _: False, hash_of="1")


def test_a_taken_name_gets_a_hash() -> None:
    long = "a" * 63
    name = names.target_vm_name(long, "", taken=lambda n: n == long, hash_of="1")
    assert re.fullmatch(r"a{58}-[a-z0-9]{4}", name)
    assert name == names.target_vm_name(long, "", taken=lambda n: n == long, hash_of="1")
    assert name != names.target_vm_name(long, "", taken=lambda n: n == long, hash_of="2")
    third = names.target_vm_name(long, "", taken=lambda n: n in {long, name}, hash_of="1")
    assert third not in {long, name}
    with pytest.raises(UserError, match="DuplicateVM"):
        names.target_vm_name("web", "", taken=lambda _: True, hash_of="1")


@given(NASTY, st.sets(st.sampled_from(["web-01", "a", "vm"])), IDS)
def test_target_names_are_legal_and_free(source: str, taken: set[str], hash_of: str) -> None:
    first = names.target_vm_name(source, "", taken=taken.__contains__, hash_of=hash_of)
    second = names.target_vm_name(source, "", taken=(taken | {first}).__contains__, hash_of=hash_of)
    assert names.is_dns1123_subdomain(first) and names.is_dns1123_subdomain(second)
    assert first not in taken and first != second


# ---- records and objects --------------------------------------------------------------------------------------------------------------


@given(NASTY, IDS)
def test_slugs_are_safe_file_names(name: str, identity: str) -> None:
    slug = names.vm_slug(name, identity)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{8}", slug)
    assert slug == names.vm_slug(name, identity) != names.vm_slug(name, identity + "x")


def test_slug_by_example() -> None:
    assert names.vm_slug("../../Etc", "a") == names.vm_slug("etc", "a")
    assert names.vm_slug("", "a").startswith("vm-")


@given(NASTY, IDS, st.integers(1, 999), st.integers(1, 99))
def test_job_names(name: str, identity: str, round: int, attempt: int) -> None:
    slug = names.vm_slug(name, identity)
    others = [
        names.job_name(RUN, slug, f"r{round}", attempt),
        names.job_name(RUN, slug, f"r{round}", attempt + 1),
        names.job_name(RUN, slug, f"r{round + 1}", attempt),
        names.job_name(RUN, slug, f"R{round}", attempt),
        names.job_name(ObjectRef(RUN.namespace, "other"), slug, f"r{round}", attempt),
        names.job_name(RUN, names.vm_slug(name, identity + "x"), f"r{round}", attempt),
        names.binder_name(RUN, slug),
    ]
    assert len(set(others)) == len(others)
    assert all(names.is_dns1123_label(n) and len(n) <= names.JOB_MAX for n in others)


@given(st.text(max_size=120), st.text(max_size=120))
def test_label_values_are_legal_and_distinct(a: str, b: str) -> None:
    for value in (names.label_value(a), names.label_value(b)):
        assert len(value) <= 63
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", value)
    assert (names.label_value(a) == names.label_value(b)) == (a == b)
    assert names.label_value("web-01_a.B") == "web-01_a.B"


def test_label_value_of_a_reference_can_still_be_read() -> None:
    assert re.fullmatch(r"openshift-mtv-shop-wave-1-go-[a-z0-9]{12}", names.label_value(str(RUN)))


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a\n", "x" * 64, "é"])
def test_no_labels(text: str) -> None:
    assert not names.is_dns1123_label(text)
    assert not names.is_dns1123_subdomain(f"ok.{text}") or text == "x" * 64
