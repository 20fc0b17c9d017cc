"""The log: two formats, fields by context, and no secret by any door."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import log
from reconciler.core.model import Secret

logger = logging.getLogger("reconciler.test")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    yield stream
    log.configure("human", "info", io.StringIO())


@pytest.fixture(autouse=True)
def _fresh_redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_redactor", log.Redactor())


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_message_fields_and_context(out: io.StringIO) -> None:
    log.configure("json", "info", out)
    with log.fields(pass_id=7, plan="shop-wave-1"):
        with log.fields(vm="web-01", phase="CopyDisks"):
            logger.info("snapshot requested", extra={"key": "k1", "disks": ["a", "b"], "vm": "own"})
        logger.debug("not at this level")
    logger.warning("outside")
    first, second = lines(out)
    assert first.pop("time")
    assert first == {
        "level": "info",
        "logger": "reconciler.test",
        "message": "snapshot requested",
        "pass_id": 7,
        "plan": "shop-wave-1",
        "vm": "own",
        "phase": "CopyDisks",
        "key": "k1",
        "disks": ["a", "b"],
    }
    assert second["message"] == "outside" and "plan" not in second


def test_human_lines(out: io.StringIO) -> None:
    log.configure("human", "debug", out)
    with log.fields(plan="shop-wave-1"):
        logger.debug("read %s", "twice", extra={"name_of": "two words", "empty": ""})
    assert out.getvalue()[8:].strip() == 'DEBUG   read twice  name_of="two words" empty="" plan=shop-wave-1'


def test_a_traceback_stays_one_json_line_and_is_readable_for_people(out: io.StringIO) -> None:
    for form in ("json", "human"):
        log.configure(form, "info", out)
        try:
            raise ValueError("bad\x1b[31m")
        except ValueError:
            logger.exception("a bug")
    as_json, *human = out.getvalue().splitlines()
    assert "ValueError: bad" in json.loads(as_json)["error"]
    assert human[-1] == "ValueError: bad\\x1b[31m"


def test_forged_lines_and_control_characters_are_shown_not_sent(out: io.StringIO) -> None:
    log.configure("human", "info", out)
    logger.info("found %s", "web\n12:00:00 ERROR fake", extra={"vm": "\x1b[2J\u202e"})
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue() and "\u202e" not in out.getvalue()


@pytest.mark.parametrize("form", ["json", "human"])
def test_no_secret_by_any_door(out: io.StringIO, form: str) -> None:
    secret = Secret('p4ss"w\\örd/$')
    log.configure(form, "debug", out)
    log.register_secret(secret)
    text = secret.reveal()
    logger.info("as repr %r", text)
    logger.info("with %s", text, extra={"a": secret, "b": [secret, text], "c": {"deep": text}, "d": f"https://u:{text}@h/x"})
    try:
        raise RuntimeError(f"login with {text!r} failed")
    except RuntimeError:
        logger.exception("refused")
    said = out.getvalue()
    for spelling in ("p4ss", "\\u00f6rd", "örd", "%C3%B6rd"):
        assert spelling not in said
    assert said.count("***") >= 5


def test_a_secret_of_many_lines_is_known_by_each_line() -> None:
    log.register_secret("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n")
    assert log.redact("got MIIEvQIBADANBg here") == "got *** here"


def test_base64_as_in_a_secret_object_is_known() -> None:
    log.register_secret("hunter22")
    assert log.redact("data: aHVudGVyMjI=") == "data: ***"


@pytest.mark.parametrize("user", ["me", "joe", "root"])
def test_base64_of_a_login_is_known(user: str) -> None:
    """It begins at another place among the groups of three each time; what is left says no more than the name."""
    log.register_secret("hunter2 & more")
    said = log.redact(base64.b64encode(f"{user}:hunter2 & more".encode()).decode())
    assert log.HIDDEN in said and len(said.replace(log.HIDDEN, "").rstrip("=")) <= len(user) + 5


def test_a_longer_secret_wins_over_its_part_and_short_ones_are_left_alone() -> None:
    for text in ("pass", "password1", "abc", ""):
        log.register_secret(text)
    assert log.redact("password1 pass abc") == "*** *** abc"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:pw@vc.example/sdk", "https://vc.example/sdk"),
        ("https://user:p@w@vc.example/sdk", "https://vc.example/sdk"),
        ("ssh://git@host/repo.git and https://token@host", "ssh://host/repo.git and https://host"),
        ("mail a@b.example, https://h/p@th", "mail a@b.example, https://h/p@th"),
    ],
)
def test_user_info_leaves_urls(text: str, clean: str) -> None:
    assert log.redact(text) == clean


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_any_registered_text_is_gone(secret: str, before: str, after: str) -> None:
    redactor = log.Redactor()
    redactor.register(secret)
    assert secret not in redactor.clean(f"{before}{secret}{after}").replace(log.HIDDEN, "") or secret in before + after + log.HIDDEN


def test_libraries_are_not_heard_below_warning(out: io.StringIO) -> None:
    log.configure("json", "debug", out)
    logging.getLogger("kubernetes.client.rest").debug("response body: secret")
    logging.getLogger("urllib3").warning("retrying")
    assert [line["message"] for line in lines(out)] == ["retrying"]


def test_configure_twice_speaks_once_and_refuses_what_it_does_not_know(out: io.StringIO) -> None:
    log.configure("json", "info", io.StringIO())
    log.configure("json", "info", out)
    logger.info("once")
    assert len(out.getvalue().splitlines()) == 1
    with pytest.raises(ValueError):
        log.configure("xml", "info", out)
    with pytest.raises(ValueError):
        log.configure("json", "loud", out)
