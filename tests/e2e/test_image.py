"""The image: built from this checkout's Dockerfile, and run as the pods that we print run it: uid 107, no capability, read-only root."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.commands.install import UID, Wishes, manifests
from reconciler.core.copyspec import CopyDisk, CopyResult, CopySpec, Reader, TlsSpec, parse_line
from reconciler.core.target import BinderSpec, CopyJob, Owner, Placement, VolumeMode
from reconciler.drivers.kubevirt import pods
from reconciler.drivers.kubevirt.options import TargetSettings
from reconciler.lab.tls import LabCa
from tests.contract.disk_server import PASSWORD, USER, DiskServer
from tests.e2e import pod
from tests.e2e.git_http import GitServer
from tests.e2e.test_git_ssh import Sshd

Json = dict[str, Any]
LOCKED = ("--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
EXAMPLES = Path(__file__).parents[2] / "examples" / "repo"
GIT_PASSWORD = "forge-Pa55word-of-the-image"
MAX_BYTES = 600 << 20  # 450 MB when this was written; virt-v2v would double it


@pytest.fixture(scope="module")
def image() -> str:
    return pod.image()


def locked(image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return pod.podman("run", "--rm", *pod.LIMITS, *LOCKED, "--tmpfs=/tmp:mode=1777", *options, image, *command)


# ---- what is in it ------------------------------------------------------------------------------------------------------------------


def test_it_is_nobodys_root_and_small(image: str) -> None:
    found = pod.inspect()
    assert found["Config"]["User"] == f"{UID}:{UID}"
    print(f"\nthe image has {found['Size'] / 1e6:.0f} MB")
    assert found["Size"] < MAX_BYTES


def test_it_holds_no_trace_of_the_machine_that_built_it(image: str) -> None:
    looks = "ls -d /src /etc/pip.conf /run/secrets /opt/build; find / -xdev -name '*.deb'"
    done = locked(image, "-c", looks, options=("--entrypoint=sh",))
    assert done.stdout == "", done.stdout


def test_locked_up_means_that_nothing_but_tmp_can_be_written(image: str) -> None:
    """Of the harness too: the tests below are worth something only if this is how they run."""
    tries = "for d in / /home/reconciler /var/tmp /tmp; do touch $d/x && echo $d; done"
    done = locked(image, "-c", f"id -u; grep -E '^(CapBnd|CapEff|NoNewPrivs)' /proc/self/status; {tries}", options=("--entrypoint=sh",))
    assert done.stdout.split() == ["107", "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "/tmp"]


def test_help_and_validate(image: str) -> None:
    assert "COMMAND" in locked(image, "--help").stdout
    good = locked(image, "validate", "/repo", options=(f"--volume={EXAMPLES}:/repo:ro",))
    assert (good.returncode, good.stdout.split(":")[1].strip()) == (0, "0 errors, 0 warnings"), good.stdout + good.stderr
    assert locked(image, "validate", "/repo/nothing-here").returncode == 64


def test_the_lab_runs_to_its_end(image: str) -> None:
    done = locked(image, "lab", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["ok"] and len(found["disks"]) == 9 and all(disk["equal"] for disk in found["disks"])
    print(f"\nthe lab inside the image: {len(found['vms'])} VMs in {found['seconds']} s")


# ---- the pods of a copy ---------------------------------------------------------------------------------------------------------------

OWNER = Owner("ns/plan", "ns/migration", "web-01", "site/vm", "", "")


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[DiskServer]:
    (tmp_path / "source").write_bytes(os.urandom(3 << 20) + bytes(2 << 20))
    server = DiskServer(tmp_path / "source", tmp_path / "tls")
    server.basic = True
    yield server
    server.close()


def importer(image: str, disks: DiskServer, root: Path) -> pod.Pod:
    """The Job that the driver makes, with its Secret, on a claim that a provisioner has just made."""
    job = CopyJob("shop", "copy-web-01", (("uuid-1", "web-01-disk", VolumeMode.FILESYSTEM),), Placement(), OWNER, "round", 1)
    template = pods.importer(job, TargetSettings(worker_image=image))["spec"]["template"]
    target = pods.target_path(0, VolumeMode.FILESYSTEM)
    disk = CopyDisk("uuid-1", "disk 1", Reader.HTTP_RANGE, disks.url, disks.path.stat().st_size, target, False)
    tls = TlsSpec(ca_file=f"{pods.CREDENTIALS_DIR}/ca.crt")
    spec = CopySpec("ns/run", "web-01", "round", (disk,), tls, pods.CREDENTIALS_DIR, termination_file=pods.TERMINATION_FILE)
    secret = {"spec.json": spec.to_json(), "user": USER, "password": PASSWORD, "ca.crt": disks.ca.pem}
    return pod.Pod(template["spec"], root, {"spec": secret, "credentials": secret}, {"web-01-disk": root / "claim"})


def test_the_importers_pod_copies_a_disk(image: str, disks: DiskServer, tmp_path: Path) -> None:
    copy = importer(image, disks, tmp_path)
    done = copy.run()
    assert done.returncode == 0, done.stdout + done.stderr
    result = parse_line(done.stdout.splitlines()[-1])
    assert isinstance(result, CopyResult) and result.done
    assert json.loads(copy.termination.read_text()) == json.loads(done.stdout.splitlines()[-1])
    written = tmp_path / "claim" / "disk.img"
    assert written.read_bytes() == disks.path.read_bytes()
    stat = written.stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (107, 107, 0o660), "the guest's process, qemu as 107, must open it"


def test_a_copy_that_is_refused_ends_with_its_code(image: str, disks: DiskServer, tmp_path: Path) -> None:
    disks.ignores_range = True
    assert importer(image, disks, tmp_path).run().returncode == 65


def test_the_binders_pod_opens_its_volumes_and_ends(image: str, tmp_path: Path) -> None:
    spec = BinderSpec("shop", "bind-web-01", (("web-01-disk", VolumeMode.FILESYSTEM),), Placement(), OWNER)
    made = pods.binder(spec, TargetSettings(worker_image=image))
    done = pod.Pod(made["spec"], tmp_path, {}, {"web-01-disk": tmp_path / "claim"}).run()
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the pods of `reconciler install` -------------------------------------------------------------------------------------------------


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The example's maps: something to validate, no site to ask."""
    bare, clone = tmp_path / "repo.git", tmp_path / "clone"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare), cwd=tmp_path)
    git("clone", "--quiet", str(bare), str(clone), cwd=tmp_path)
    (clone / "maps.yaml").write_text((EXAMPLES / "maps" / "lab-net.yaml").read_text())
    git("add", "-A", cwd=clone)
    git("commit", "--quiet", "-m", "One map", cwd=clone)
    git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
    return bare


def printed(kind: str, image: str, url: str, **wishes: Any) -> tuple[Json, Json]:
    """The document of this kind, and the data of the ConfigMap if there is one."""
    made = list(manifests(Wishes("openshift-mtv", url, image, **wishes)))
    (wanted,) = (one for one in made if one["kind"] == kind)
    return wanted, next((one["data"] for one in made if one["kind"] == "ConfigMap"), {})


def eventually(met: Callable[[], bool], log: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def has_status(repo: Path) -> bool:
    done = subprocess.run(["git", "log", "-1", "reconciler/status"], cwd=repo, capture_output=True, text=True)
    return "Reconciled-From: " in done.stdout


def test_the_deployments_pod_asks_for_the_password_publishes_and_is_healthy(image: str, repo: Path, e2e_ca: LabCa, tmp_path: Path) -> None:
    server = GitServer(e2e_ca.server_context("forge-of-the-image")[0], {"bot": GIT_PASSWORD})
    server.start()
    try:
        made, askpass = printed("Deployment", image, server.url + str(repo))
        contents = {"git": {"username": "bot", "password": GIT_PASSWORD}, "askpass": askpass}
        trust = (f"--volume={e2e_ca.path}:/e2e-ca.crt:ro", "--env=GIT_SSL_CAINFO=/e2e-ca.crt")  # the site's own CA
        one = pod.Pod(made["spec"]["template"]["spec"], tmp_path / "pod", contents, more=trust)
        with one.running() as running:
            eventually(lambda: has_status(repo), running.out)
            eventually(lambda: answers(one.container, "livenessProbe"), running.out)
            assert answers(one.container, "readinessProbe")
            assert zombies(running) == 0
            assert running.terminate(60) == 0
            lines = running.out.read_text().splitlines()
        assert lines and all(json.loads(line) for line in lines), "every line of the log is JSON"
        assert GIT_PASSWORD not in "\n".join(lines)
    finally:
        server.stop()


def zombies(running: pod.Running) -> int:
    """After an orphan fell to process 1 and ended, as git's detached maintenance does. With one for each fetch the pod could not fork."""
    running.execute("sh", "-c", "sleep 0.2 &")
    time.sleep(1)
    return running.execute("sh", "-c", "grep -h ^State: /proc/[0-9]*/status").count("zombie")


def answers(container: Json, probe: str) -> bool:
    where = container[probe]["httpGet"]
    (port,) = (one["containerPort"] for one in container["ports"] if one["name"] == where["port"])
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{where['path']}", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_the_cron_jobs_pod_reads_and_writes_by_ssh(image: str, repo: Path, tmp_path: Path) -> None:
    sshd = Sshd(tmp_path)
    try:
        sshd.wait()
        made, _ = printed("CronJob", image, f"ssh://root@127.0.0.1:{sshd.port}{repo}", cron="*/5 * * * *")
        contents = {"git": {"ssh-privatekey": (tmp_path / "user").read_text(), "known_hosts": sshd.known.read_text()}}
        template = made["spec"]["jobTemplate"]["spec"]["template"]
        (tmp_path / "pod").mkdir()
        done = pod.Pod(template["spec"], tmp_path / "pod", contents).run()
        assert done.returncode == 0, done.stdout + done.stderr
        assert has_status(repo)
        sshd.trust("other-host")
        contents["git"]["known_hosts"] = sshd.known.read_text()
        (tmp_path / "other").mkdir()
        refused = pod.Pod(template["spec"], tmp_path / "other", contents).run()
        assert refused.returncode == 2 and "HostKeyChanged" in refused.stdout + refused.stderr
    finally:
        sshd.stop()
