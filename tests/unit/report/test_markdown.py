"""The README of the status branch: what it says, what it folds, and that nothing hostile gets through."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.model import ObjectRef, Result
from reconciler.core.record import Records, VmRecord
from reconciler.report.markdown import render_readme

from .sample import HOSTILE, NS, PLAN, RUN, at, copying, failed, held, problem, records, round_of, succeeded, vm, warm

NBSP = "\N{NO-BREAK SPACE}"


def rows(text: str) -> list[list[str]]:
    """Cells of every table line."""
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]


def row(text: str, name: str) -> list[str]:
    return next(cells for cells in rows(text) if cells[0].startswith(f"[{name}]"))


def test_one_vm() -> None:
    text = render_readme(replace(records(copying("web-01", 45)), statuses={}))
    assert "**1 VM in 1 plan:** 1 running. 18 of 40 GiB copied." in text
    assert row(text, "web-01") == [
        f"[web-01](runs/{NS}/{RUN.name}/vms/web01-1a2b3c4d.yaml)",
        "🔄 copying 45 %",
        "1",
        f"18{NBSP}of{NBSP}40{NBSP}GiB",
        f"since{NBSP}14:01",
        f"24{NBSP}Nov{NBSP}14:03",
    ]
    assert "## Needs attention" not in text and "## Providers" not in text


def test_empty_branch_and_plans_only() -> None:
    assert "**No plan yet.**" in render_readme(Records(""))
    text = render_readme(replace(records(), commit="x"))
    assert "**2 plans**, no migration has begun." in text
    assert "| erp-wave-1 | ❌ not ready | datastore-15 (ds-old) is not in the storage map |" in text
    assert "| shop-wave-1 | ✅ ready |" in text
    assert "| vcenter-b | ❌ not ready | the certificate of vcenter-b has expired; renew it |" in text


def test_attention_lists_failures_manifest_problems_and_blocked_objects() -> None:
    text = render_readme(records(failed("mail-01"), held("app-01"), succeeded("web-01")), [problem()])
    part = text.split("## Needs attention")[1].split("## shop-wave-1")[0]
    assert [line[:3] for line in part.strip().splitlines()] == ["- ❌", "- ⚠", "- ❌", "- ⚠", "- ⚠"]
    assert "GuestShutdownTimeout: the guest did not shut down within 600 s" in part
    assert "- ❌ `plans/erp.yaml:14` unknown field storageclass *did you mean storageClass?*" in part
    assert "web-01" not in part


def test_done_vms_tell_downtime_and_a_new_name() -> None:
    renamed = replace(succeeded("Web_01"), new_name="web-01")
    text = render_readme(records(renamed))
    cells = row(text, r"Web\_01")
    assert cells[1:3] == ["✅ succeeded", "1"]
    assert cells[4] == f"9{NBSP}min{NBSP}30{NBSP}s"
    assert text.endswith("*Of it ours* is what is left without the time in which bytes were moved.\n")
    assert "*Downtime*" not in render_readme(records(vm("a")))
    assert cells[5] == f"8{NBSP}min{NBSP}15{NBSP}s"
    assert cells[7] == "now web-01"


def test_vms_that_are_copied_while_they_run_have_a_table_of_their_rounds() -> None:
    rests = warm("mail-01", round_of(1, 0, 40 << 10, seconds=400.0), round_of(2, 60, 360))
    first = warm("erp-01", round_of(1, 0, ended=False))
    text = render_readme(records(rests, first, succeeded("web-01")))
    part = text.split("| Copied while it runs")[1]
    link = f"[mail-01](runs/{NS}/{RUN.name}/vms/mail01-1a2b3c4d.yaml)"
    assert row(f"| x{part}", "mail-01") == [link, "2", "360 MiB in 3 s", "102 KiB/s", "about 13 s", "16:02"]
    assert row(f"| x{part}", "erp-01")[1:] == ["0", "", "", "not known yet", "round 1 runs"]
    assert "web-01" not in part.split("<details>")[0]
    assert "Copied while it runs" not in render_readme(records(succeeded("web-01")))


def test_rounds_of_many_are_folded() -> None:
    many = [warm(f"m-{i:03}", round_of(1, 0)) for i in range(250)]
    text = render_readme(records(*many))
    assert "<summary>Rounds of 250 VMs</summary>" in text and "And 50 more." in text


def test_five_hundred_vms_are_folded() -> None:
    vms: list[VmRecord] = [succeeded(f"ok-{i:03}") for i in range(400)]
    vms += [copying(f"run-{i:02}", 10) for i in range(20)] + [failed(f"bad-{i:02}") for i in range(30)]
    vms += [vm(f"wait-{i:02}", "Pending", message="waits for esx-2") for i in range(50)]
    text = render_readme(records(*vms))
    folded = "".join(re.findall(r"<details>.*?</details>", text, re.DOTALL))
    shown = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert "<summary>✅ 400 succeeded</summary>\n\n|" in folded and "<summary>🕓 50 waiting</summary>" in folded
    assert len(rows(shown)) < 70
    assert shown.index("bad-00") < shown.index("run-00")
    assert " and 22 more in plan shop-wave-1: GuestShutdownTimeout" in shown
    assert text.count("did not shut down") == 1
    assert len(text) < 150_000


def test_ten_thousand_vms_stay_below_what_github_shows() -> None:
    vms = []
    for plan in range(1000):
        where = {"plan": ObjectRef(NS, f"plan-{plan:04}"), "run": ObjectRef(NS, f"run-{plan:04}")}
        vms += [vm(f"vm-{plan}-{i}", "Started", frozen=None, **where) for i in range(10)]
    text = render_readme(records(*vms))
    assert len(text.encode()) < 500_000
    assert "## 900 other plans" in text


def test_a_retry_shows_the_newest_record_of_a_vm() -> None:
    again = ObjectRef(NS, "shop-wave-1-again")
    first = records(failed("web-01"), succeeded("db-01"))
    both = records(failed("web-01"), succeeded("db-01"), copying("web-01", 5))
    retry = replace(both.vms[(RUN, "web01-1a2b3c4d")], run=again)
    runs = {
        RUN: replace(first.runs[RUN], completed=at(20), result=Result.FAILED),
        again: replace(first.runs[RUN], run=again, started=at(40), vms=(retry.slug,)),
    }
    text = render_readme(replace(first, runs=runs, vms={**first.vms, retry.key: retry}))
    assert "1 running, 1 succeeded. Cold" in text
    assert f"runs/{NS}/{again.name}/vms/" in row(text, "web-01")[0]
    assert "<summary>2 runs</summary>" in text
    assert row(text, RUN.name)[1:] == ["1 failed, 1 succeeded", "`cccccccccccc`", "2026-11-24 14:00 UTC", "2026-11-24 14:20 UTC (20 min)"]


def test_the_same_records_give_the_same_bytes_in_any_order() -> None:
    one, other = records(failed("a"), copying("b", 3)), records(failed("a"), copying("b", 3))
    turned = replace(other, vms=dict(reversed(other.vms.items())), statuses=dict(reversed(other.statuses.items())))
    assert render_readme(one) == render_readme(turned)


def test_archived() -> None:
    assert "## shop-wave-1 (archived)" in render_readme(replace(records(succeeded("a")), archived=frozenset({PLAN})))


def test_hostile_text_is_only_text() -> None:
    text = render_readme(records(failed(HOSTILE, HOSTILE)), [problem(HOSTILE, HOSTILE)])
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    assert not re.search(r"(?<!\\)\[a\]\(|(?<!\\)@admin|https://", text)
    widths = {len(cells) for cells in rows(text.split("## shop-wave-1")[1].split("<details>")[0])}
    assert len(widths) == 1


@settings(max_examples=50)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_name_keeps_the_table(name: str, why: str) -> None:
    text = render_readme(records(failed(f"x{name}", why), copying("b", 5)))
    table = text.split("## shop-wave-1")[1].split("<details>")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} <= {8, 7}
