"""The Go template subset against what Go and Sprig give. A matrix: template -> text, template -> where and why it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.gotemplate import TemplateError
from reconciler.core.re2 import PatternError, replace_all
from reconciler.core.sprig import Value
from reconciler.core.templateparse import parse

DATA: dict[str, Value] = {"Name": "Web Server 01", "Index": 2, "Root": 2, "Shared": False, "Empty": ""}


def render(source: str) -> str:
    return parse(source, frozenset(DATA)).render(DATA)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "Web Server 01"),
        ("{{ $.Name }}", "Web Server 01"),
        ("a {{- .Index -}} b", "a2b"),
        ("a {{-3}} b", "a -3 b"),
        ("a {{/* note */ -}} b", "a b"),
        ("{{- /* note */ -}} b", "b"),
        ('{{"a\\tb\\x41"}}{{`\\t`}}', "a\tbA\\t"),
        ("{{'a'}}", "97"),
        ("{{0x10}} {{2.50}} {{3.0}} {{-7}}", "16 2.5 3 -7"),
        ("{{true}}{{.Shared}}", "truefalse"),
        ("{{.Name | lower | trunc 3}}", "web"),
        ("{{lower (trunc 3 .Name)}}", "web"),
        ("{{if eq .Index .Root}}root{{else}}data{{.Index}}{{end}}", "root"),
        ("{{if .Shared}}a{{else if gt .Index 1}}b{{else}}c{{end}}", "b"),
        ("{{if .Empty}}a{{else if .Shared}}b{{else}}c{{if true}}d{{end}}{{end}}", "cd"),
        ("{{if and (ge .Index 2) (not .Shared)}}y{{end}}", "y"),
        ('{{or .Empty "fallback"}}', "fallback"),
        ("{{and .Empty (div 1 0)}}", ""),
        ("{{or .Index (div 1 0)}}", "2"),
        ("{{eq .Index 5 4 2}}", "true"),
        ('{{ne "a" "b"}}{{lt "a" "b"}}{{le 2 2}}{{gt 1 2}}{{ge 1 2}}', "truetruetruefalsefalse"),
        ("{{- if true }} x {{ end -}}  y", " x y"),
    ],
)
def test_renders(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{trunc 5 .Name}}", "Web S"),
        ("{{trunc -2 .Name}}", "01"),
        ("{{trunc -99 .Name}}", "Web Server 01"),
        ("{{trunc 99 .Name}}", "Web Server 01"),
        ("{{substr 4 10 .Name}}", "Server"),
        ("{{substr -1 3 .Name}}", "Web"),
        ("{{substr 11 -1 .Name}}", "01"),
        ("{{substr 11 99 .Name}}", "01"),
        ("{{initials .Name}}", "WS0"),
        ('{{title "web-server of_site"}}', "Web-Server Of_site"),
        ('{{untitle "Web Server"}}', "web server"),
        ("{{nospace .Name}}", "WebServer01"),
        ("{{upper .Name}}", "WEB SERVER 01"),
        ('{{replace " " "-" .Name}}', "Web-Server-01"),
        ('{{repeat 3 "ab"}}', "ababab"),
        ('{{trim "  x "}}', "x"),
        ('{{trimAll "-" "--a-b--"}}', "a-b"),
        ('{{trimSuffix " 01" .Name}}{{trimPrefix "Web" .Name}}', "Web Server Server 01"),
        ('{{contains "Server" .Name}}{{hasPrefix "Web" .Name}}{{hasSuffix "x" .Name}}', "truetruefalse"),
        ("{{add 1 2 3}} {{add1 .Index}} {{sub 1 3}} {{mul 2 3 4}}", "6 3 -2 24"),
        ("{{div 7 2}} {{div -7 2}} {{mod 7 3}} {{mod -7 3}}", "3 -3 1 -1"),
        ("{{max 1 5 3}} {{min 4 2 8}}", "5 2"),
        ("{{floor 2.9}} {{ceil 2.1}} {{floor -2.1}}", "2 3 -3"),
        ("{{round 3.14159 2}} {{round 2.5 0}} {{round 2.51 0 0.6}}", "3.14 3 2"),
        ('{{add "3" 1}} {{add "x" 1}}', "4 1"),
        ('{{mustRegexReplaceAll "[^a-z0-9]+" (lower .Name) "-"}}', "web-server-01"),
        ('{{mustRegexReplaceAll `(\\w+) (\\w+)` .Name "${2}-$1"}}', "Server-Web 01"),
    ],
)
def test_sprig(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{{.Nope}}", "line 1, column 3: there is no variable .Nope; available are .Empty, .Index"),
        ("{{if .Shared}}{{.Nope}}{{end}}", "column 17: there is no variable .Nope"),
        ("a\n  {{.Name.Sub}}", "line 2, column 5: there is no variable .Name.Sub"),
        ("{{Name}}", "there is no function Name; did you mean .Name"),
        ('{{printf "%d" .Index}}', "there is no function printf"),
        ("{{.Name", "column 1: {{ is never closed"),
        ('{{"abc}}', "column 3: the text that begins here has no closing quote"),
        ("{{.}}", "a variable needs a name"),
        ("{{}}", "{{ }} is empty"),
        ("{{$x := .Name}}", "template variables ($name) are not available"),
        ("{{range .Name}}{{end}}", "range is not available"),
        ("{{if .Shared}}x", "{{if}} has no {{end}}"),
        ("{{if}}x{{end}}", "if needs a condition"),
        ("{{end}}", "{{end}} without {{if}}"),
        ("{{else}}", "{{else}} without {{if}}"),
        ("{{if true}}{{else}}{{else}}{{end}}", "a second {{else}}"),
        ("{{if true}}{{else .Name}}{{end}}", "only if may follow else"),
        ("{{if true}}{{end 1}}", "nothing may follow end"),
        ("{{lower (.Name}}", "( is never closed"),
        ("{{lower .Name)}}", ") without ("),
        ("{{lower ()}}", "a value is missing here"),
        ("{{| lower}}", "nothing stands before |"),
        ("{{.Name | }}", "a value is missing here"),
        ("{{.Name .Index}}", "only a function can take arguments"),
        ("{{lower .Name | .Index}}", "only a function can take arguments or stand behind |"),
        ("{{lower .Index}}", "lower: argument 1 must be text, not a whole number"),
        ('{{trunc "3" .Name}}', "trunc: argument 1 must be a whole number, not text"),
        ("{{trunc 3}}", "trunc needs 2 arguments, not 1"),
        ("{{max}}", "max needs at least 1 argument, not 0"),
        ("{{and}}", "and needs at least 1 argument, not 0"),
        ('{{eq .Index "2"}}', "eq cannot compare a whole number with text"),
        ("{{lt true false}}", "lt cannot order true or false"),
        ("{{div 1 0}}", "div divides by zero"),
        ("{{substr 9 2 .Name}}", "substr: start 9 is behind end 2"),
        ("{{substr -1 99 .Name}}", "substr: end 99 is outside"),
        ("{{repeat 99999 .Name}}", "repeat makes more than 4096 characters"),
        ("{{repeat -1 .Name}}", "the count is negative"),
        ("{{99999999999999999999}}", "the number is too large"),
        ("{{mul 9999999999 9999999999}}", "mul: the number is too large"),
        ("{{round 1.5 999}}", "round: the number is too large"),
        ('{{"\\q"}}', "unknown escape"),
        ("{{" + "(" * 200, "more than 100 parentheses"),
        ('{{mustRegexReplaceAll "(" .Name ""}}', "the pattern is wrong"),
        ('{{mustRegexReplaceAll "(a+)+$" .Name ""}}', "a repeated group may hold no repeat"),
    ],
)
def test_refuses(source: str, part: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "text", "replacement", "result"),
    [
        ("a", "banana", "o", "bonono"),
        ("x*", "abxd", "-", "-a-b-d-"),  # Go: an empty match behind a match does not count
        ("(?P<first>a)(b)?", "ac", "[$first$2$$]", "[a$]c"),
        ("(?<n>a)", "ba", "${n}${n}", "baa"),
        ("(a)", "a", "$1x", ""),
        ("(a)", "a", "$", "$"),
        ("b$", "b\n", "x", "b\n"),
        ("[[:upper:]_]", "A_b", "-", "--b"),
        ("[[&|~]", "a[b|", "-", "a-b-"),
        ("[]x]", "]", "-", "-"),
        ("(?i)WEB", "web", "w", "w"),
        (r"\(?=", "(=", "-", "-"),
        (r"\d", "٣3", "n", "٣n"),
    ],
)
def test_replace_all(pattern: str, text: str, replacement: str, result: str) -> None:
    assert replace_all(pattern, text, replacement) == result


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?<!a)",
        r"(a)\1",
        "a++",
        "a{1,2}+",
        "(?>a)",
        "[[:nope:]]",
        r"\pL",
        "(a*)*",
        "a*" * 9,
        "(a|a)*b",
        "(a?){50}a{50}",
        "a?" * 40 + "a" * 40,
        "(a|a)" * 40 + "b",
        "(a{1,9})+",
        "((ab)+)*",
        "((a|b)+c)+",
        "x" * 201,
        "(?x)a",
        "(?#c)",
        "[",
    ],
)
def test_patterns_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        replace_all(pattern, "a", "")


@pytest.mark.parametrize(
    "pattern", [r"^(web|app|db|cache|mail|proxy|dns|lb)-(.*)$", r"^([a-z]+)-([a-z]+?)-([0-9]{1,3})(\..*)?$", "(abc)+", "(-_){2}"]
)
def test_what_people_write_is_not_refused(pattern: str) -> None:
    replace_all(pattern, "web-01", "$1")


@pytest.mark.parametrize("pattern", ["a*a*a*a*b", "a?a?a*a*a*b", "(a|a)(a|a)a*a*b"])
def test_the_worst_that_is_accepted_ends(pattern: str) -> None:
    assert replace_all(pattern, "a" * 64, "") == "a" * 64


@given(st.text(alphabet="{}.-|() \"'`$ifelsndtrucNamIdex0123/*\\\n", max_size=60) | st.text(max_size=40).map(lambda t: "{{" + t + "}}"))
def test_any_source_renders_or_is_refused(source: str) -> None:
    try:
        first = render(source)
    except TemplateError as err:
        assert str(err)
    else:
        assert first == render(source)


@given(st.text(alphabet="ab[]()^$*+?{}|\\.-:&~<>P0123,=!#", max_size=25), st.text(alphabet="ab-[", max_size=20))
def test_any_pattern_replaces_or_is_refused(pattern: str, text: str) -> None:
    try:
        replace_all(pattern, text, "$1-")
    except PatternError as err:
        assert str(err)
