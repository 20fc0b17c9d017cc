"""`reconciler plan` and `reconciler inventory` against both simulated sites: what is said, and that nothing is written anywhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.commands import inventory, plan
from reconciler.errors import UserError
from reconciler.settings import Settings
from tests.integration.loops import go_on, passes
from tests.integration.simlab import PATH, USER, SimLab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SimLab]:
    with SimLab(tmp_path) as lab:
        lab.vm("web", disks=2)
        lab.vm("db", on=False)
        lab.plan("web", "db")
        lab.migration()
        yield lab


def settings(lab: SimLab, repo: bool = True, branch: str | None = None) -> Settings:
    environment = {"PATH": PATH, "HOME": str(lab.root)}
    cache, url = lab.root / "cache-reader", str(lab.repo) if repo else ""
    return Settings(repo=url, branch=branch, kubeconfig=lab.kubeconfig, cache_dir=cache, environment=environment)


def ask(lab: SimLab, format: plan.Format = "text", *, folder: Path | None = None, branch: str | None = None) -> tuple[int, str]:
    out = io.StringIO()
    code = plan.run(settings(lab, folder is None, branch), folder=folder, format=format, clock=lab.clock, out=out)
    return code, out.getvalue()


def changed(lab: SimLab) -> list[str]:
    """Requests that would change something in the cluster, and refs that are there besides main."""
    writes = [f"{entry.verb} {entry.resource}" for entry in lab.cluster.audit if entry.verb not in ("get", "list", "watch")]
    refs = lab.git("for-each-ref", "--format=%(refname:short)", cwd=lab.repo).split()
    return writes + [ref for ref in refs if ref not in ("main", "pr")]


@pytest.mark.parametrize("restored", ["before the run", "in mid-run"])
def test_a_plan_says_of_a_restored_status_branch_what_a_run_says(lab: SimLab, restored: str) -> None:
    """Both VMs were moved; git knows that no more (safety 7)."""
    phase = {"before the run": "", "in mid-run": "CopyDisks"}[restored]
    lab.commit()
    go_on(lab, lambda: bool(lab.reports) and (not phase or any(v.phase == phase for v in lab.vms())))
    last = lab.git("rev-parse", "reconciler/status", cwd=lab.repo).strip()
    first = lab.git("rev-list", "--max-parents=0", last, cwd=lab.repo).strip()
    go_on(lab, lab.ended)
    lab.stop()
    if not phase:  # what it was when only the instance was written down
        lab.git("fetch", "-q", "origin", "reconciler/status")
        lab.git("checkout", "-q", "-B", "restored", first)
        lab.git("rm", "-r", "-q", "--ignore-unmatch", "runs", "claims", "status")
        lab.git("commit", "-q", "--amend", "-m", "Restored")
        last = lab.git("rev-parse", "restored").strip()
        lab.git("push", "-q", "-f", "origin", "restored:reconciler/status")
        lab.git("checkout", "-q", "main")
    else:
        lab.git("update-ref", "refs/heads/reconciler/status", last, cwd=lab.repo)
    code, text = ask(lab, "json")
    planned = {
        v["wanted"]: [(f["type"], f["reason"]) for f in v.get("findings", ()) if f["category"] == "Critical"]
        for p in json.loads(text)["plans"]
        for v in p["vms"]
    }
    lab.reports.clear()
    passes(lab, 6)
    said = {v.wanted: [(c.type, c.reason) for c in v.conditions if c.category.value == "Critical"] for v in lab.vms()}
    assert code == 1 and planned == said == {"web": [("StatusRewound", "Modified")], "db": [("StatusRewound", "Modified")]}


def test_what_a_reconciler_does_meanwhile_is_no_restore(lab: SimLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the fetch and the look it commits, and writes that commit on what it makes."""
    lab.commit()
    go_on(lab, lambda: bool(lab.vms()) and all(v.phase == "CreateDataVolumes" for v in lab.vms()))
    look = plan.look

    def late(*args: Any) -> Any:
        go_on(lab, lambda: bool(lab.marked()), seconds=6.0)
        return look(*args)

    monkeypatch.setattr(plan, "look", late)
    _, text = ask(lab, "json")
    assert "StatusRewound" not in text


def test_a_pull_request_is_answered_before_it_is_merged(lab: SimLab) -> None:
    lab.remove("migrations/run-1.yaml")
    lab.commit()
    lab.git("checkout", "-q", "-b", "pr")
    lab.migration()
    lab.git("add", "-A")
    lab.git("commit", "-q", "-m", "Start the wave")
    lab.git("push", "-q", "origin", "pr")
    before = changed(lab)
    code, main = ask(lab)
    assert code == 0 and "nothing starts" in main
    code, text = ask(lab, branch="pr")
    assert code == 0, text
    assert "Migration openshift-mtv/run-1 starts 2 VMs" in text
    assert "web → shop/web: source On → target On" in text and "db → shop/db: source Off → target Off" in text
    assert text.count("read by datastore: flat file without parent") == 3
    assert "NIC VM Network → pod network" in text
    web, db = (line for line in text.splitlines() if "steps:" in line)
    assert web.index("shutting down the source") < web.index("copying") < web.index("starting the target")
    assert "shutting down" not in db and "starting the target" not in db
    assert changed(lab) == before == []


def test_a_work_tree_needs_no_repo_and_what_blocks_is_told_with_its_remedy(lab: SimLab) -> None:
    lab.plan("web", "ghost", "db")
    text = (lab.clone / "sites.yaml").read_text()
    lab.write("sites.yaml", text.replace("storageClass: fast", "storageClass: slow"))
    code, said = ask(lab, folder=lab.clone)
    assert code == 1
    assert "VMNotFound: no VM with name 'ghost'" in said and "correct the reference" in said
    assert "'slow'" in said and "classes there" in said
    assert "0 of 1 plan ready" in said
    assert not (lab.root / "cache-reader").exists()


def test_json_holds_everything(lab: SimLab) -> None:
    lab.commit()
    code, out = ask(lab, "json")
    found = json.loads(out)
    assert code == 0 and found["blocked"] is False
    (only,) = found["plans"]
    assert only["ready"] is True and only["starts"] == ["openshift-mtv/run-1"]
    web = only["vms"][0]
    assert web["target"] == "shop/web" and len(web["disks"]) == 2 and web["disks"][0]["storageClass"] == "fast"
    assert web["steps"][0] == "Started" and "CopyDisks" in web["steps"]


def test_markdown_is_harmless_whatever_a_source_calls_its_vms(lab: SimLab) -> None:
    evil = "<img src=x>|@team [x](http://e)"
    lab.vm(evil)
    lab.plan("web", evil)
    lab.commit()
    code, out = ask(lab, "markdown")
    assert out.startswith("## ✅ Migration plan: 1 of 1 plan ready")
    assert "<img" not in out and "\\@team" in out and "[x](" not in out.replace("\\[", "").replace("\\]", "")
    assert "<details>" in out and "1. starting" in out
    rows = [line for line in out.splitlines() if line.startswith("| ") and "img" in line]
    assert rows and all(line.replace("\\|", "").count("|") in (6, 7) for line in rows)
    assert code == 0


def test_an_unreachable_site_blocks_and_says_so(lab: SimLab) -> None:
    lab.commit()
    texts = {"user": USER, "password": "not-it", "ca.crt": lab.ca.pem}
    secret = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": "vc-credentials", "namespace": "openshift-mtv"}
    lab.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": secret})
    code, text = ask(lab)
    assert code == 1 and "ConnectionAuthFailed" in text, text
    assert "could not be looked at" in text
    assert "not-it" not in text


def test_the_inventory_names_what_plans_and_maps_need(lab: SimLab) -> None:
    lab.commit()
    out = io.StringIO()
    assert inventory.run(settings(lab), name="vc", folder=None, output="json", clock=lab.clock, out=out) == 0
    found = json.loads(out.getvalue())
    assert [vm["name"] for vm in found["vms"]] == ["db", "web"]
    web = found["vms"][1]
    assert web["power"] == "On" and web["path"].endswith("/web") and web["nics"][0]["network"] == "VM Network"
    assert {d["path"] for d in web["disks"]} == {"datastore"} and "flat file" in web["disks"][0]["reason"]
    assert [n["name"] for n in found["networks"]] == ["VM Network"] and [s["name"] for s in found["datastores"]] == ["ds", "locked"]
    assert changed(lab) == []


def test_the_inventory_as_a_table_cannot_be_coloured_by_a_name(lab: SimLab) -> None:
    lab.vm("[red]x\u202e")
    out, quiet = io.StringIO(), settings(lab, repo=False)
    assert inventory.run(quiet, name="openshift-mtv/vc", folder=lab.clone, output="table", clock=lab.clock, out=out) == 0
    text = out.getvalue()
    assert "[red]x" in text and "\u202e" not in text
    assert "Datastores" in text and "VM Network" in text


def test_an_inventory_needs_a_source(lab: SimLab) -> None:
    for name, reason in (("host", "NotSupported"), ("vx", "NotFound")):
        with pytest.raises(UserError) as caught:
            inventory.run(settings(lab, repo=False), name=name, folder=lab.clone, output="json", clock=lab.clock, out=io.StringIO())
        assert caught.value.reason == reason
