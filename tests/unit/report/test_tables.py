"""Terminal tables: what they say, that hashes can be told apart, and that names cannot command the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console, RenderableType

from reconciler.core.model import Result
from reconciler.core.record import DiskRecord, Intent, IntentKind, VmRecord
from reconciler.report import tables
from reconciler.report.plans import plan_view
from reconciler.report.vmdetail import vm_detail

from .sample import GIB, HOSTILE, PLAN, at, copying, failed, held, problem, records, round_of, succeeded, vm, warm

A = "3f9c2a1b7e44d0aa" * 4


def text(renderable: RenderableType, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(renderable)
    return out.getvalue()


def proof(**changes: object) -> tables.DiskProof:
    base = tables.DiskProof("web-01", "Hard disk 1", 40 * GIB, A, A)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_plans() -> None:
    shown = text(tables.plans_table(records(copying("web-01", 45), failed("db-01"))))
    assert "openshift-mtv/shop-wave-1" in shown and "running: 1 failed, 1 running" in shown and "18 of 80 GiB" in shown
    assert "not ready: datastore-15 (ds-old) is not in the storage map" in shown
    done = records(succeeded("web-01"))
    ended = {key: replace(run, completed=run.started, result=Result.SUCCEEDED) for key, run in done.runs.items()}
    assert "succeeded: 1 succeeded" in text(tables.plans_table(replace(done, runs=ended)))
    assert "archived" in text(tables.plans_table(replace(done, archived=frozenset({PLAN}))))


def test_vms_fit_eighty_columns_with_their_troubles_below() -> None:
    waiting = [vm(f"wait-{i}", "Pending", message="waits for a slot on esx-2") for i in range(8)]
    everything = records(copying("web-01", 45), held("app-01"), failed("mail-01"), *waiting)
    shown = text(tables.vms_view(plan_view(everything, PLAN).vms, at(20), "shop-wave-1"), 80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "copying 45 %" in shown and "since 14:01" in shown
    assert "wait-0, wait-1, wait-2, wait-3, wait-4 and 3 more: waits for a slot on esx-2" in shown
    assert shown.index("mail-01: GuestShutdownTimeout") < shown.index("app-01: SourceChanged")


def test_one_vm_shows_its_disks_their_paths_and_its_life() -> None:
    shown = text(vm_detail(succeeded("web-01", 2)), 220)
    assert shown.count("datastore: flat file on VMFS, source off") == 2
    assert "in 1 min 15 s" in shown and f"sha256  {'ab' * 32}" in shown and "web-01-1 (fast, Filesystem, ReadWriteOnce)" in shown
    life = [line.split("  ")[0].strip() + line[17:60].rstrip() for line in shown.split("When (UTC)")[1].splitlines() if "24 Nov" in line]
    assert life == [
        "24 Nov 14:01:00  declared: shut down the source guest",
        "24 Nov 14:02:00  source went off",
        "24 Nov 14:03:00  finishing",
        "24 Nov 14:10:00  declared: start the target",
        "24 Nov 14:10:30  target told to start",
        "24 Nov 14:12:00  succeeded",
    ]


def test_one_vm_that_has_just_begun() -> None:
    shown = text(vm_detail(replace(copying("web-01", 45), disks=(DiskRecord("web-01-d0", watermark_bytes=GIB),))))
    assert "1 GiB proven" in shown and "sha256" not in shown
    assert "not yet" in text(vm_detail(copying("web-01", 45)))
    assert "void: a cancel came" in text(vm_detail(vm("a", intents=(Intent(IntentKind.START_TARGET, at(1), void="a cancel came"),))))


def test_problems() -> None:
    shown = text(tables.problems_table([problem()]))
    assert "plans/erp.yaml:14:9" in shown and "unknown field storageclass" in shown and "did you mean storageClass?" in shown


def test_proof_of_equal_disks() -> None:
    assert proof().equal
    shown = text(tables.proof_table([proof(), proof(disk="Hard disk 2")]))
    assert shown.count("web-01") == 1 and shown.count("yes") == 2
    assert "3f9c2a1b7e44…" in shown


def test_proof_of_what_differs_or_is_missing() -> None:
    assert not proof(source_sha256="", target_sha256="").equal
    shown = text(tables.proof_table([proof(target_sha256=A[:30] + "0" + A[31:]), proof(vm="b", target_sha256="")]))
    assert shown.count("NO") == 2 and "missing" in shown
    source, target = tables.short_pair(A, A[:30] + "0" + A[31:])
    assert source != target and len(source) == len(target) == 32


def test_short_pairs_of_equal_short_and_empty_hashes() -> None:
    assert tables.short_pair(A, A) == (f"{A[:12]}…", f"{A[:12]}…")
    assert tables.short_pair("ab", "") == ("ab", "")


def test_names_are_neither_markup_nor_control() -> None:
    shown = text(tables.vms_view([failed(HOSTILE, HOSTILE), failed("[bold]b[/bold]", "[link=x]y[/link]")], at(20)))
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "[bold]b[/bold]" in shown and "[link=x]y[/link]" in shown


# ---- warm -----------------------------------------------------------------------------------------------------------------------------


def test_vms_that_are_copied_while_they_run_tell_their_rounds_and_what_a_cutover_costs_now() -> None:
    rests = warm("mail-01", round_of(1, 0, 40 << 10, seconds=400.0), round_of(2, 60, 360))
    runs = warm("erp-01", round_of(1, 0), round_of(2, 60, ended=False))
    shown = text(tables.vms_view([rests, runs], at(182), "shop-wave-2"), 80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    head = next(line for line in shown.splitlines() if "Last round" in line)
    assert head.split("  ")[0].strip() == "VM" and "Cutover now" in head and "Next (UTC)" in head
    line = [one for one in shown.splitlines() if "mail-01" in one][1]
    assert " ".join(line.split()) == "mail-01 2 360 MiB in 3 s 102 KiB/s about 16 s 16:02"
    assert "not known yet" in shown and "round 2 runs" in shown
    assert "Last round" not in text(tables.vms_view([copying("a", 4), succeeded("b")], at(182)))


def test_the_downtime_of_each_vm_and_what_of_it_was_ours() -> None:
    shown = text(tables.vms_view([succeeded("web-01"), copying("db-01", 4)], at(20)))
    line = next(one for one in shown.splitlines() if "web-01" in one)
    assert "9 min 30 s" in line and "8 min 15 s" in line and "Of it ours" in shown
    assert "Of it ours" not in text(tables.vms_view([copying("db-01", 4)], at(20))), "a column without anything in it is left out"


def test_the_moves_of_a_lab_run() -> None:
    final = round_of(3, 131, 7, final=True)
    mail = replace(succeeded("mail-01"), rounds=(round_of(1, 0, 90), round_of(2, 60), final), started=at(0), completed=at(140))
    off = replace(succeeded("batch-01"), outage=None)
    shown = text(tables.moves_table([moved(mail), moved(off, target_power_asked="Off", target_power_seen="On")]))
    cells = [line.strip() for line in shown.splitlines() if "-01" in line]
    told = " ".join(cells[0].split())
    assert told == "mail-01 Off, as asked On, as asked 2 rounds, 102 MiB 7 MiB 9 min 30 s 9 min 27 s 2 h 20 min"
    assert "none" in cells[1] and "On, asked Off" in cells[1]


def moved(record: VmRecord, **changes: object) -> tables.VmProof:
    return replace(tables.VmProof(record, "Off", "Off", "On", "On"), **changes)  # type: ignore[arg-type]


def test_power_is_as_asked_on_both_sides() -> None:
    assert moved(vm("a")).as_asked
    assert not moved(vm("a"), source_power_seen="On").as_asked
    assert not moved(vm("a"), target_power_seen="Off").as_asked


def test_one_warm_vm_tells_each_round_and_how_its_downtime_was_spent() -> None:
    dropped = round_of(2, 60, abandoned="its snapshot was removed by somebody else")
    doubted = round_of(3, 70, doubts={"mail-01-d0": "the VM's files were moved"})
    final = round_of(4, 131, 7, final=True)
    record = replace(succeeded("mail-01"), rounds=(round_of(1, 0), dropped, doubted, final))
    shown = text(vm_detail(record), 220)
    assert "No guest ran for 9 min 30 s: bytes moved for 3 s of it, 9 min 27 s were ours" in shown
    assert "dropped: its snapshot was removed by somebody else" in shown and "compared in full: the VM's files were moved" in shown
    assert re.search(r"final delta +24 Nov 16:11:00 +7 MiB", shown)
    assert "Round" not in text(vm_detail(succeeded("web-01")), 220)
