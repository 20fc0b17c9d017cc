"""Nothing that a source calls itself may become markup, a link, a mention, a trailer or a terminal command."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.report import escape


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("web-01", "web-01"),
        ("a|b", r"a\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("*x* _y_ `z` ~w~", r"\*x\* \_y\_ \`z\` \~w\~"),
        ("[a](b) ![c](d)", r"\[a\](b) \!\[c\](d)"),
        ("@team #1 $x$", r"\@team \#1 \$x\$"),
        ("see https://evil.example", r"see https\://evil.example"),
        ("WWW.evil.example", r"WWW\.evil.example"),
        ("two\nlines\ttab", "two lines tab"),
        ("\x1b[31mred\u202egnp", "\ufffd\\[31mred\ufffdgnp"),
    ],
)
def test_markdown(text: str, safe: str) -> None:
    assert escape.markdown(text) == safe


def test_commit_text_mentions_nobody_and_closes_nothing() -> None:
    assert escape.commit("fixes #12 by @boss [skip ci]\nReconciled-From: x") == "fixes ?12 by ?boss (skip ci) Reconciled-From: x"


@given(st.text(max_size=80), st.integers(1, 40))
def test_clean_is_one_visible_line_within_its_limit(text: str, limit: int) -> None:
    out = escape.clean(text, limit)
    assert len(out) <= limit
    assert out.isprintable()


@given(st.text(max_size=80))
def test_no_cell_is_left_and_no_tag_begins(text: str) -> None:
    out = escape.markdown(text)
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", out)
    assert "<" not in out and ">" not in out and "\n" not in out


@given(st.text(max_size=60))
def test_links_stay_inside_their_brackets(path: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9/._%-]*", escape.link(path))
