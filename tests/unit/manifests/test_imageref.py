"""Names of container images, and what a setting that holds one says when it is none: at its line, and never with its text."""

from __future__ import annotations

import pytest

from reconciler.core.desired import Severity
from reconciler.manifests.imageref import fault
from reconciler.manifests.resolve import resolve

from .text import HOST, NET, STORE, VCENTER, loaded, manifest, plan

GOOD = [
    "vddk",
    "vddk:8",
    "infra/vddk:8.0.3",
    "registry.example.com/infra/vddk:8.0.3",
    "registry.example.com:5000/infra/vddk",
    "localhost/vddk:latest",
    "localhost:5000/vddk",
    "[fd00::1]:5000/vddk:8",
    "REGISTRY.example.com/vddk",  # host names may be written so
    "image-registry.openshift-image-registry.svc:5000/openshift-mtv/vddk:8",
    "registry/a__b/c-d--e/f.g:V_1.2-x",
    "registry.example.com/vddk@sha256:" + "0a" * 32,
    "registry.example.com/vddk:8.0.3@sha256:" + "0a" * 32,
]
BAD = [
    ("https://registry.example.com/vddk:8", "is a URL"),
    ("registry.example.com/vddk: 8", "white space"),
    ("registry.example.com/vddk:8 ", "white space"),
    ("registry.example.com/VDDK:8", "lower-case"),
    ("registry.example.com//vddk", "lower-case"),
    ("registry.example.com/vddk/", "lower-case"),
    ("/vddk", "lower-case"),
    ("registry.example.com/vddk:", "tag"),
    ("registry.example.com/vddk:8/0", "lower-case"),
    ("registry.example.com/vddk:" + "8" * 129, "tag"),
    ("registry.example.com/vddk@sha256:0a", "digest"),
    ("user:geheim@registry.example.com/vddk:8", "digest"),
    ("registry..example.com:x/vddk", "no registry"),
    ("vddk_:8", "lower-case"),
]


@pytest.mark.parametrize("text", GOOD)
def test_the_name_of_an_image(text: str) -> None:
    assert fault(text) is None


@pytest.mark.parametrize(("text", "says"), BAD)
def test_what_is_none_is_told_from_it(text: str, says: str) -> None:
    found = fault(text)
    assert found is not None
    assert says in found[0]
    assert found[1]
    assert "geheim" not in "".join(found)


def with_settings(*lines: str, type_: str = "vsphere") -> str:
    return VCENTER.replace("type: vsphere", f"type: {type_}") + "  settings:\n" + "".join(f"    {line}\n" for line in lines)


def problems(provider: str) -> list[tuple[str, str, Severity, int]]:
    found = resolve(loaded(plan(), provider, HOST, NET, STORE), "x").problems
    return [(p.field, p.reason, p.severity, p.place.line) for p in found]


def test_a_wrong_image_is_an_error_at_its_line() -> None:
    provider = with_settings("sdkEndpoint: vcenter", "vddkInitImage: https://registry.example.com/vddk:8")
    found = next(p for p in resolve(loaded(plan(), provider, HOST, NET, STORE), "x").problems if p.place.path == "f1.yaml")
    assert (found.place.path, found.place.line, found.field) == ("f1.yaml", 12, "spec.settings.vddkInitImage")
    assert found.message.startswith("is a URL and not the name of an image")


def test_the_controllers_image_is_judged_too() -> None:
    controller = manifest("ForkliftController", "c", "vddk_image: registry.example.com/VDDK")
    (found,) = resolve(loaded(controller), "x").problems
    assert (found.field, found.reason, found.place.line) == ("spec.vddk_image", "NotValid", 7)
    sound = manifest("ForkliftController", "c", "vddk_image: registry.example.com/vddk:8")
    desired = resolve(loaded(sound), "x")
    assert (desired.problems, desired.limits.vddk_image) == ((), "registry.example.com/vddk:8")


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        (["vddkInitImage: registry.example.com/vddk:8"], []),
        (["vddkConfig: a=1"], ["spec.settings.vddkConfig"]),
        (["vddkConfig: a=1", 'useVddkAioOptimization: "false"'], ["spec.settings.vddkConfig"]),
        (["vddkConfig: a=1", 'useVddkAioOptimization: "true"'], []),
    ],
)
def test_a_configuration_that_counts_for_nothing_is_a_warning(lines: list[str], fields: list[str]) -> None:
    found = problems(with_settings(*lines))
    assert [(field, severity) for field, _, severity, _ in found] == [(field, Severity.WARNING) for field in fields]


def test_vddk_of_another_platform_is_a_warning() -> None:
    found = problems(with_settings("vddkInitImage: NOT AN IMAGE", 'useVddkAioOptimization: "true"', type_="ovirt"))
    assert [f[0] for f in found] == ["spec.settings.vddkInitImage", "spec.settings.useVddkAioOptimization"]
    assert {f[1:3] for f in found} == {("WithoutEffect", Severity.WARNING)}
