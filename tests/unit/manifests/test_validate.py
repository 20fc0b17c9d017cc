"""`reconciler validate`: what it prints, its exit code, and what it does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.commands.validate import run
from reconciler.errors import UserError

from .text import HOST, NET, STORE, VCENTER, manifest, plan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in (("vc", VCENTER), ("host", HOST), ("net", NET), ("store", STORE)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a,b.yaml").write_text(plan())
    return tmp_path


def break_it(tree: Path) -> Path:
    file = tree / "plans" / "a,b.yaml"
    file.write_text(plan('warm: on\nvms:\n- name: web\n  targetname: "100%"\n'))
    return file


def test_a_sound_tree_is_silent_but_for_the_count(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "text", False) == 0
    assert capsys.readouterr().out == "5 files, 5 manifests, 0 ignored: 0 errors, 0 warnings\n"


def test_text_has_one_line_and_a_hint_for_each_problem(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = break_it(tree)
    assert run(tree, "text", False) == 1
    assert capsys.readouterr().out.splitlines() == [
        f'{file}:15:3: error: Plan openshift-mtv/wave spec.warm: must be true or false, not "on"',
        "    hint: in YAML 1.2 a bare on is text; write true without quotes",
        f'{file}:18:5: error: Plan openshift-mtv/wave spec.vms[0].targetname: unknown field "targetname"',
        "    hint: did you mean targetName?",
        "5 files, 4 manifests, 0 ignored: 2 errors, 0 warnings",
    ]


def test_github_commands_are_escaped(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = break_it(tree)
    (tree / "plans" / "c.yaml").write_text(manifest("Plan", '"50%\\n::warning::x"', "vms: []"))
    assert run(tree, "github", False) == 1
    out = capsys.readouterr().out.splitlines()
    where = str(file).replace(",", "%2C")
    assert out[0] == (
        f"::error file={where},line=15,col=3,title=WrongType::Plan openshift-mtv/wave spec.warm: "
        'must be true or false, not "on"%0Ain YAML 1.2 a bare on is text; write true without quotes'
    )
    assert all(line.startswith("::error file=") for line in out[:-1])
    assert any("50%25%0A::warning::x" in line for line in out)


def test_json_has_everything(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = break_it(tree)
    assert run(tree, "json", False) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["manifests"], found["errors"], found["warnings"]) == (5, 4, 2, 0)
    assert found["problems"][0] == {
        "file": str(file),
        "line": 15,
        "column": 3,
        "severity": "error",
        "object": "Plan/openshift-mtv/wave",
        "field": "spec.warm",
        "reason": "WrongType",
        "message": 'must be true or false, not "on"',
        "hint": "in YAML 1.2 a bare on is text; write true without quotes",
    }


def test_control_characters_do_not_reach_the_terminal(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "x.yaml").write_text(manifest("Plan", '"a\\e[2Jb"', "vms: []"))
    run(tree, "text", False)
    assert "\x1b" not in capsys.readouterr().out


def test_warnings_do_not_fail(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "plans" / "a,b.yaml").write_text(plan("type: live\ntagMapping: {}\nvms: [{name: a}]\n"))
    assert run(tree, "text", False) == 0
    out = capsys.readouterr().out
    assert (
        ":15:3: warning: Plan openshift-mtv/wave spec.type: live migration is not implemented; remedy: type: cold (the plan will not run)"
        in out
    )
    assert out.endswith("0 errors, 2 warnings\n")


def test_a_setting_that_means_nothing_here_is_said_at_its_line_with_the_reason(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "c.yaml").write_text(manifest("ForkliftController", "c", "controller_max_vm_inflight: 3\ncontroller_log_level: 4"))
    assert run(tree, "text", False) == 0
    out = capsys.readouterr().out
    assert "c.yaml:8:3: warning: ForkliftController openshift-mtv/c spec.controller_log_level: " in out
    assert "has no meaning here: use --log-level\n" in out
    assert out.endswith("0 errors, 1 warning\n")


def test_offload_is_said_at_its_entry(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "store.yaml").write_text(STORE + "    offloadPlugin: {csiVolumeImport: {secretRef: s, storageVendorProduct: ontap}}\n")
    assert run(tree, "text", False) == 0
    assert "store.yaml:13:5: warning: StorageMap openshift-mtv/store spec.map[0].offloadPlugin: copy offload" in capsys.readouterr().out


def test_unknown_fields_may_be_warnings(tree: Path) -> None:
    (tree / "plans" / "a,b.yaml").write_text(plan("fromTheFuture: 1\nvms: [{name: a}]\n"))
    assert (run(tree, "text", False), run(tree, "text", True)) == (1, 0)


def test_hidden_folders_and_links_are_not_followed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bad = tmp_path_factory.mktemp("outside") / "bad.yaml"
    bad.write_text("a: [")
    (tree / ".hidden").mkdir()
    (tree / ".hidden" / "bad.yaml").write_text("a: [")
    (tree / "link.yaml").symlink_to(bad)
    (tree / "gone.yaml").symlink_to("nowhere.yaml")
    (tree / "folder").symlink_to(bad.parent)
    assert run(tree, "text", False) == 0


def test_one_file_can_be_checked(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree / "vc.yaml", "text", False) == 0
    assert capsys.readouterr().out.startswith("1 file, 1 manifest, 0 ignored")


def test_a_folder_without_manifests_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "text", False) == 0
    assert "no Forklift manifest was found here" in capsys.readouterr().out


def test_a_path_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        run(tmp_path / "nowhere", "text", False)


def test_a_huge_file_is_refused_without_being_read_whole(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tree / "huge.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert run(tree, "text", False) == 1
    assert "huge.yaml:1:1: error: a manifest file may have at most" in capsys.readouterr().out


def test_nothing_heavy_is_loaded(tree: Path) -> None:
    """In a process of its own, since other tests load everything."""
    code = (
        "import sys; from pathlib import Path; from reconciler.commands.validate import run\n"
        f"assert run(Path({str(tree)!r}), 'text', False) == 0\n"
        "heavy = {'kubernetes', 'pyVmomi', 'git', 'cattrs', 'rich', 'cryptography', 'rapidfuzz', 'openstack', 'ovirtsdk4', 'urllib3'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
