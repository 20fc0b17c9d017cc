"""The bounded YAML reader: core scalars, places, and hostile or broken text."""

from __future__ import annotations

import time

import pytest

from reconciler.manifests.yamltext import MAX_BYTES, MAX_DEPTH, parse, place_in


def data_of(text: str) -> object:
    documents, faults = parse(text.encode())
    assert faults == ()
    return documents[0].data


def reasons(text: str | bytes) -> list[tuple[str, int]]:
    _, faults = parse(text.encode() if isinstance(text, str) else text)
    return [(fault.reason, fault.line) for fault in faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("No", "No"), ("y", "y"), ("true", True), ("False", False), ("TRUE", True), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("0x1F", 31), ("0o17", 15), ("017", 17), ("-5", -5), ("+5", 5), ("1_000", "1_000"),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), (".inf", float("inf")), ("-.INF", -float("inf")),
        ("1.2.3", "1.2.3"), ("12:30", "12:30"),
        ("2026-09-12", "2026-09-12"), ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("!!int 1", 1), ("=", "="), ("-", [None]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = data_of(f"k: {text}" if text != "-" else "k:\n -")
    assert found == {"k": value}
    assert type(found["k"]) is type(value)  # type: ignore[index]


def test_not_a_number_is_a_float() -> None:
    value = data_of("k: .NaN")["k"]  # type: ignore[index]
    assert value != value


def test_keys_are_text_as_written() -> None:
    assert data_of("on: 1\n1: 2\nnull: 3\n'a b': 4") == {"on": 1, "1": 2, "null": 3, "a b": 4}


def test_every_field_has_its_place() -> None:
    documents, _ = parse(b"a:\n  b: 1\n  c:\n    - x: 1\n      y: 2\n    - z\n---\n\nd: 1\n")
    assert documents[0].places == {
        "a": (1, 1), "a.b": (2, 3), "a.c": (3, 3), "a.c[0]": (4, 7), "a.c[0].x": (4, 7), "a.c[0].y": (5, 7), "a.c[1]": (6, 7)
    }  # fmt: skip
    assert (documents[1].line, documents[1].places["d"]) == (9, (9, 1))


def test_a_field_without_a_place_takes_that_of_what_holds_it() -> None:
    places = {"a": (1, 1), "a.c[0]": (4, 7)}
    assert place_in(places, "a.c[0].missing.deep", (9, 9)) == (4, 7)
    assert place_in(places, "a.c[1].x", (9, 9)) == (1, 1)
    assert place_in(places, "b", (9, 9)) == (9, 9)


def test_aliases_give_the_same_value() -> None:
    assert data_of("a: &x [1, {b: 2}]\nc: *x") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


def test_anchors_end_with_their_document() -> None:
    assert reasons("a: &x 1\n---\nb: *x\n") == [("YamlInvalid", 3)]


def test_an_alias_to_what_holds_it_is_refused() -> None:
    assert reasons("a: &x\n  - *x\n") == [("YamlInvalid", 2)]


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"] + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    begun = time.perf_counter()
    assert [reason for reason, _ in reasons("\n".join(lines))] == ["TooLarge"]
    assert time.perf_counter() - begun < 2


def test_a_thousand_and_one_aliases_are_too_many() -> None:
    assert reasons("a: &a 1\nb: [" + ",".join(["*a"] * 1001) + "]") == [("TooManyAliases", 2)]
    assert reasons("a: &a 1\nb: [" + ",".join(["*a"] * 1000) + "]") == []


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400_000])
@pytest.mark.parametrize("bracket", ["[", "{a: ", "- "])
def test_depth_is_bounded(bracket: str, depth: int) -> None:
    assert [reason for reason, _ in reasons(bracket * min(depth, MAX_BYTES // len(bracket)))] == ["TooDeep"]


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert reasons("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []


def test_size_is_bounded() -> None:
    assert reasons(b"a: " + b"x" * MAX_BYTES) == [("TooLarge", 1)]


def test_duplicate_keys_name_the_first_place() -> None:
    _, faults = parse(b"a: 1\nb:\n  c: 1\n  c: 2\n")
    assert [(f.reason, f.line, f.column, f.field) for f in faults] == [("DuplicateKey", 4, 3, "b.c")]
    assert "line 3" in faults[0].message


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("a: 1\nb: [1,\nc: 2\n", "YamlInvalid", 2),
        ("a: 1\nb: {x: 1,\n", "YamlInvalid", 2),
        ("a: 1\n\tb: 2\n", "YamlInvalid", 2),
        ("a: 'open\n", "YamlInvalid", 1),
        ("a: *nowhere\n", "YamlInvalid", 1),
        ("name: {{ .Values.name }}\n", "BadKey", 1),
        ("? [a, b]\n: 1\n", "BadKey", 1),
        ("a: !!python/object:os.system x\n", "BadTag", 1),
        ("a: !!python/object:os.system {x: y}\n", "BadTag", 1),
        ("a: !!int x\n", "BadTag", 1),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "MergeKey", 3),
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n", "ConflictMarkers", 2),
    ],
)
def test_broken_text_has_a_reason_and_a_line(text: str, reason: str, line: int) -> None:
    assert (reason, line) in reasons(text)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("rest", ["", "\n", "\nc: 3\nd: 4\n", "\n---\ne: 1\n", "\nc:\n  - f: 1\n"])
def test_a_quote_that_is_never_closed_is_told_where_it_opened(quote: str, rest: str) -> None:
    _, (fault,) = parse(f"a: 1\nb: é{quote}\nc: [1, {quote}open{rest}".encode())
    assert (fault.line, fault.column) == (3, 8) and "never closed" in fault.message


@pytest.mark.parametrize("quote", ["'", '"'])
def test_one_that_the_next_quote_closes_is_told_where_it_opened(quote: str) -> None:
    """Most manifests have more quotes further down."""
    text = f"metadata: {{name: web}}\nspec:\n  url: {quote}https://host/sdk\n  secret: {quote}s{quote}\n  type: {quote}x{quote}\n"
    _, (fault,) = parse(text.encode())
    assert (fault.line, fault.column) == (3, 8), fault
    assert "line 4" in fault.message and fault.hint and "host" not in fault.message


@pytest.mark.parametrize("text", ["a: [1", "a: [1\n", "a: {b\n\n", "a:\n  - [x,\n", "a: {x: 1,\n", "a: !!\n", "a: [\n# more\n"])
def test_no_line_lies_behind_the_end(text: str) -> None:
    _, (fault,) = parse(text.encode())
    assert 1 <= fault.line <= len(text.splitlines()), fault


def test_a_quote_over_several_lines_is_not_to_blame_for_what_is_wrong_elsewhere() -> None:
    assert reasons("a: 'one\n  two'\nb: 1\n\tc: 2\n") == [("YamlInvalid", 4)]


@pytest.mark.parametrize("data", [b"a: \xff\xfe\n", b"a: 1\nb: \x00\n", b"a: \xed\xa0\x80\n"])
def test_bytes_that_are_no_text_are_refused(data: bytes) -> None:
    assert [reason for reason, _ in reasons(data)] == ["YamlInvalid"]


def test_documents_before_a_syntax_error_are_kept() -> None:
    documents, faults = parse(b"a: 1\n---\nb: [\n")
    assert [doc.data for doc in documents] == [{"a": 1}]
    assert len(faults) == 1


def test_messages_never_repeat_the_text() -> None:
    _, faults = parse(b"password: 'hunter2\nx")
    assert faults and "hunter2" not in faults[0].message + faults[0].hint


@pytest.mark.parametrize("text", ["", "---\n", "# only a comment\n", "\n\n"])
def test_nothing_is_nothing(text: str) -> None:
    documents, faults = parse(text.encode())
    assert faults == ()
    assert all(doc.data is None for doc in documents)
