"""The YAML writer: what it writes, our reader and any YAML 1.1 parser take back as the same values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.manifests.emit import dump
from reconciler.manifests.yamltext import parse

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DATA = st.dictionaries(st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6))

PROFILE = settings(max_examples=60)


def read(text: bytes) -> object:
    documents, faults = parse(text)
    assert faults == ()
    return documents[0].data


@PROFILE
@given(DATA)
def test_what_is_written_is_read_back(data: dict[str, object]) -> None:
    assert read(dump(data)) == data


@PROFILE
@given(st.text())
def test_text_stays_text_for_a_yaml_1_1_parser(text: str) -> None:
    yaml = YAML(typ="safe", pure=False)
    yaml.version = (1, 1)
    assert yaml.load(dump({"key": text})) == {"key": text}


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "No",
        "null",
        "~",
        "",
        "1",
        "1e3",
        "0x1F",
        "2026-09-12",
        "12:30:45",
        "- a",
        "a: b",
        "a #b",
        "{{x}}",
        "*a",
        "&a",
        "!x",
        "%x",
        "@a",
    ],
)
def test_ambiguous_text_is_quoted(text: str) -> None:
    assert dump({"key": text}) == f'key: "{text}"\n'.encode()


@pytest.mark.parametrize("text", ["\u202egnp.exe", "\u2028", "\x07", "\x1b[31m", "\ufeff", "\x85", "\ud800"])
def test_unprintable_text_is_never_written_raw(text: str) -> None:
    assert dump({"key": text}).isascii()


def test_lines_are_a_literal_block() -> None:
    assert dump({"a": {"b": "one\n  two\n\nthree\n"}, "c": ["x\ny"]}).decode() == (
        "a:\n  b: |\n    one\n      two\n\n    three\nc:\n- |-\n  x\n  y\n"
    )


def test_block_style_with_lists_at_their_key() -> None:
    data = {"a": [{"b": 1, "c": {"d": []}}, "e", [True]], "f": {}, "g": 1e16}
    assert dump(data).decode() == "a:\n- b: 1\n  c:\n    d: []\n- e\n-\n  - true\nf: {}\ng: 1.0e+16\n"
