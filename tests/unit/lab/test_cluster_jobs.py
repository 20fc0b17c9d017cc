"""Jobs and pods of the simulated cluster: real processes, their files, logs, messages and deaths; simulated time."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client import ApiException

from tests.unit.lab.clusterkit import Json, Site, claim, job, pod, site_at

# Writes into its volume what its spec says, through paths that it knows only from its spec, its arguments and its environment.
WORKER = """
import json, os, sys, pathlib
spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
pathlib.Path(spec["target"], "disk.img").write_bytes(b"bytes of " + spec["url"].encode())
for n in range(5):
    print("line", n, flush=True)
user = pathlib.Path(os.environ["CREDENTIALS"], "user").read_text()
keys = sorted(set(os.environ) - {"LC_CTYPE"})
pathlib.Path(spec["message"]).write_text(json.dumps({"user": user, "env": keys}))
sys.exit(int(sys.argv[2]))
"""
# An init image's entrypoint: brings something into the folder it is given, or fails and says why.
BRINGER = """
import pathlib, sys
if sys.argv[2:] == ["broken"]:
    print("no room")
    sys.exit(1)
pathlib.Path(sys.argv[1], "user").write_text("by the image")
"""
# Says that it is there, then stays until it is told to go; with "deaf" it does not listen.
STAYER = """
import signal, sys, time
def leave(*_):
    print("asked to leave", flush=True)
    if sys.argv[1] != "deaf":
        sys.exit(143)
signal.signal(signal.SIGTERM, leave)
print("here", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    programs: dict[str, list[str]] = {}
    for name, text in (("worker", WORKER), ("bringer", BRINGER), ("stayer", STAYER)):
        (tmp_path / f"{name}.py").write_text(text)
        programs[name] = [sys.executable, str(tmp_path / f"{name}.py")]
    with site_at(tmp_path, programs) as made:
        yield made


def copy_job(exit_code: int = 0, **spec: Any) -> Json:
    template = pod("x", ["data"], ["worker", "/etc/copy/spec.json", str(exit_code)])
    container = template["spec"]["containers"][0]
    container["env"] = [{"name": "CREDENTIALS", "value": "/etc/copy"}]
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}, {"name": "spec", "mountPath": "/etc/copy", "readOnly": True}]
    template["spec"]["volumes"].append({"name": "spec", "secret": {"secretName": "copy", "defaultMode": 0o400}})
    return job("copy", template, podReplacementPolicy="Failed", **spec)


def copy_secret(owner: Any) -> Json:
    ref = {"apiVersion": "batch/v1", "kind": "Job", "name": owner.metadata.name, "uid": owner.metadata.uid}
    spec = json.dumps({"url": "https://127.0.0.1:443/data/x", "target": "/data", "message": "/dev/termination-log"})
    return {"metadata": {"name": "copy", "ownerReferences": [ref]}, "stringData": {"spec.json": spec, "user": "root"}}


def pods_of(site: Site, name: str) -> list[Any]:
    found: list[Any] = site.core.list_namespaced_pod("shop", label_selector=f"job-name={name}").items
    return found


def conditions(obj: Any) -> dict[str, str]:
    return {c.type: c.reason for c in obj.status.conditions or [] if c.status == "True"}


def run_copy(site: Site, exit_code: int = 0, **spec: Any) -> Any:
    """The order that a migration uses: suspended Job, Secret owned by it, unsuspended."""
    site.core.create_namespaced_persistent_volume_claim("shop", claim("data", "fast"))
    made = site.batch.create_namespaced_job("shop", copy_job(exit_code, suspend=True, **spec))
    site.cluster.step()
    assert conditions(site.batch.read_namespaced_job("copy", "shop")) == {"Suspended": "JobSuspended"}
    assert pods_of(site, "copy") == []
    site.core.create_namespaced_secret("shop", copy_secret(made))
    site.batch.patch_namespaced_job("copy", "shop", {"spec": {"suspend": False}})
    site.until(lambda: set(conditions(site.batch.read_namespaced_job("copy", "shop"))) & {"Complete", "Failed"})
    return site.batch.read_namespaced_job("copy", "shop")


def stay(site: Site, how: str = "polite", **spec: Any) -> Any:
    """A Job whose process runs; returns its pod."""
    site.core.create_namespaced_persistent_volume_claim("shop", claim("data"))
    site.batch.create_namespaced_job("shop", job("stay", pod("x", ["data"], ["stayer", how], **spec), podReplacementPolicy="Failed"))
    site.cluster.step()
    made = pods_of(site, "stay")[0]
    site.until(lambda: "here" in site.core.read_namespaced_pod_log(made.metadata.name, "shop"))
    return site.core.read_namespaced_pod(made.metadata.name, "shop")


class TestProcess:
    def test_a_job_runs_the_program_on_its_volume_and_reports(self, site: Site) -> None:
        done = run_copy(site)
        assert conditions(done)["Complete"] == "CompletionsReached"
        assert (done.status.succeeded, done.status.failed, done.status.active) == (1, None, None)
        assert done.status.start_time is not None and done.status.completion_time is not None
        # The claim waited for its first consumer, and the URL that looks like a mount path was left alone.
        assert site.cluster.volume_path("shop", "data").read_bytes() == b"bytes of https://127.0.0.1:443/data/x"
        (ended,) = pods_of(site, "copy")
        state = ended.status.container_statuses[0].state.terminated
        assert (ended.status.phase, state.exit_code, state.reason) == ("Succeeded", 0, "Completed")
        assert json.loads(state.message) == {"user": "root", "env": ["CREDENTIALS", "HOME", "HOSTNAME", "LANG", "PATH"]}

    def test_a_failure_is_final_and_says_why(self, site: Site) -> None:
        done = run_copy(site, 65)
        assert conditions(done)["Failed"] == "BackoffLimitExceeded"
        (ended,) = pods_of(site, "copy")
        state = ended.status.container_statuses[0].state.terminated
        assert (ended.status.phase, state.exit_code, state.reason) == ("Failed", 65, "Error")
        assert json.loads(state.message)["user"] == "root"

    def test_a_backoff_limit_gives_more_pods_after_a_while(self, site: Site) -> None:
        site.batch.create_namespaced_job("shop", job("bad", pod("x", command=["no-such-program"]), backoffLimit=1))
        site.cluster.step()
        assert len(pods_of(site, "bad")) == 1
        site.later(11)
        first, second = pods_of(site, "bad")
        assert {p.status.container_statuses[0].state.terminated.reason for p in (first, second)} == {"StartError"}
        assert conditions(site.batch.read_namespaced_job("bad", "shop"))["Failed"] == "BackoffLimitExceeded"

    def test_a_missing_secret_keeps_the_pod_waiting(self, site: Site) -> None:
        site.core.create_namespaced_persistent_volume_claim("shop", claim("data"))
        made = site.batch.create_namespaced_job("shop", copy_job())
        site.cluster.step()
        (waiting,) = pods_of(site, "copy")
        assert (waiting.status.phase, waiting.spec.node_name) == ("Pending", "node-a")
        with pytest.raises(ApiException) as caught:
            site.core.read_namespaced_pod_log(waiting.metadata.name, "shop")
        assert "is waiting to start: ContainerCreating" in json.loads(caught.value.body)["message"]
        events = site.core.list_namespaced_event("shop", field_selector=f"involvedObject.uid={waiting.metadata.uid}").items
        assert any(e.reason == "FailedMount" and 'secret "copy" not found' in e.message for e in events)
        site.core.create_namespaced_secret("shop", copy_secret(made))
        site.until(lambda: pods_of(site, "copy")[0].status.phase == "Succeeded")

    def test_the_memory_killer_has_its_own_reason(self, site: Site) -> None:
        running = stay(site)
        site.cluster.kill_for_memory("shop", running.metadata.name)
        site.cluster.step()
        state = site.core.read_namespaced_pod(running.metadata.name, "shop").status.container_statuses[0].state.terminated
        assert (state.reason, state.exit_code) == ("OOMKilled", 137)

    def test_a_deadline_ends_a_pod(self, site: Site) -> None:
        running = stay(site, activeDeadlineSeconds=60)
        site.later(59)
        assert site.core.read_namespaced_pod(running.metadata.name, "shop").status.phase == "Running"
        site.later(2)
        ended = site.core.read_namespaced_pod(running.metadata.name, "shop")
        assert (ended.status.phase, ended.status.reason) == ("Failed", "DeadlineExceeded")


INIT = "example.com/bringer:1"


def with_init(site: Site, *entrypoint: str) -> None:
    """A Job whose init container brings something into a folder that the two see under different paths."""
    site.cluster.image(INIT, entrypoint or None)
    template = pod("x", ["data"], ["worker", "/etc/copy/spec.json", "0"])
    spec = template["spec"]
    main = spec["containers"][0]
    main |= {"env": [{"name": "CREDENTIALS", "value": "/seen"}]}
    main["volumeMounts"] += [{"name": "spec", "mountPath": "/etc/copy"}, {"name": "shared", "mountPath": "/seen", "readOnly": True}]
    spec["volumes"] += [{"name": "spec", "secret": {"secretName": "copy"}}, {"name": "shared", "emptyDir": {}}]
    init = {"name": "bring", "image": INIT, "volumeMounts": [{"name": "shared", "mountPath": "/opt"}]}
    spec["initContainers"] = [init | {"terminationMessagePolicy": "FallbackToLogsOnError"}]
    site.core.create_namespaced_persistent_volume_claim("shop", claim("data", "fast"))
    text = json.dumps({"url": "https://127.0.0.1:443/data/x", "target": "/mnt/data", "message": "/dev/termination-log"})
    site.core.create_namespaced_secret("shop", {"metadata": {"name": "copy"}, "stringData": {"spec.json": text}})
    site.batch.create_namespaced_job("shop", job("copy", template))
    site.cluster.step()


class TestInit:
    def test_an_image_runs_its_own_entrypoint_before_the_containers(self, site: Site) -> None:
        with_init(site, "bringer", "/opt")
        site.until(lambda: pods_of(site, "copy")[0].status.phase == "Succeeded")
        (ended,) = pods_of(site, "copy")
        assert json.loads(ended.status.container_statuses[0].state.terminated.message)["user"] == "by the image"
        assert ended.status.init_container_statuses[0].state.terminated.exit_code == 0

    def test_one_that_fails_ends_the_pod_and_the_containers_never_begin(self, site: Site) -> None:
        with_init(site, "bringer", "/opt", "broken")
        site.until(lambda: pods_of(site, "copy")[0].status.phase == "Failed")
        (ended,) = pods_of(site, "copy")
        state = ended.status.init_container_statuses[0].state.terminated
        assert (state.exit_code, state.reason, state.message) == (1, "Error", "no room\n")
        assert ended.status.container_statuses[0].state.waiting.reason == "PodInitializing"

    def test_an_image_that_no_registry_has_is_waited_for(self, site: Site) -> None:
        with_init(site)
        for _ in range(3):
            site.later(60)
        (waiting,) = pods_of(site, "copy")
        (state,) = [s.state.waiting for s in waiting.status.init_container_statuses]
        assert (waiting.status.phase, state.reason) == ("Pending", "ImagePullBackOff")
        assert INIT in state.message
        site.cluster.image(INIT, ["true"])
        site.later(1)
        assert pods_of(site, "copy")[0].status.init_container_statuses[0].state.waiting is None

    def test_a_pod_that_waits_for_an_image_goes_when_it_is_deleted(self, site: Site) -> None:
        with_init(site)
        site.batch.delete_namespaced_job("copy", "shop", propagation_policy="Background")
        site.later(1)
        assert pods_of(site, "copy") == []


class TestLog:
    def test_the_last_lines_are_enough(self, site: Site) -> None:
        run_copy(site)
        name = pods_of(site, "copy")[0].metadata.name
        assert site.core.read_namespaced_pod_log(name, "shop") == "".join(f"line {n}\n" for n in range(5))
        assert site.core.read_namespaced_pod_log(name, "shop", tail_lines=2, container="main") == "line 3\nline 4\n"
        assert site.core.read_namespaced_pod_log(name, "shop", tail_lines=99).count("line") == 5
        with pytest.raises(ApiException) as caught:
            site.core.read_namespaced_pod_log(name, "shop", container="other")
        assert caught.value.status == 400

    def test_lines_before_a_moment_are_left_out(self, site: Site) -> None:
        running = stay(site, "deaf")
        site.later(1)  # the kubelet looks how long the log is
        site.later(100)
        site.core.delete_namespaced_pod(running.metadata.name, "shop")
        site.until(lambda: "asked" in site.core.read_namespaced_pod_log(running.metadata.name, "shop"))
        assert site.core.read_namespaced_pod_log(running.metadata.name, "shop", since_seconds=50) == "asked to leave\n"

    def test_a_followed_log_ends_with_its_container(self, site: Site) -> None:
        running = stay(site)
        lines: list[str] = []
        first = threading.Event()

        def follow() -> None:
            for line in watch.Watch().stream(site.core.read_namespaced_pod_log, running.metadata.name, "shop"):
                lines.append(line)
                first.set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert first.wait(5)
        site.core.delete_namespaced_pod(running.metadata.name, "shop")
        site.until(lambda: not reader.is_alive())
        reader.join()
        assert lines == ["here", "asked to leave"]


class TestEnd:
    def test_deleting_the_job_in_the_foreground_waits_for_the_process(self, site: Site) -> None:
        running = stay(site, "deaf", terminationGracePeriodSeconds=20)
        site.batch.delete_namespaced_job("stay", "shop", propagation_policy="Foreground")
        site.until(lambda: "asked" in site.core.read_namespaced_pod_log(running.metadata.name, "shop"))
        site.later(19)
        assert site.batch.read_namespaced_job("stay", "shop").metadata.deletion_timestamp is not None
        assert site.core.read_namespaced_pod(running.metadata.name, "shop").status.phase == "Running"
        site.later(2)
        assert site.cluster.find("Job", "shop", "stay") is None
        assert site.cluster.find_all("Pod", "shop") == []

    def test_the_secret_of_a_job_goes_with_it(self, site: Site) -> None:
        run_copy(site)
        site.batch.delete_namespaced_job("copy", "shop", propagation_policy="Foreground")
        site.cluster.step()
        assert site.cluster.find_all("Secret", "shop") == site.cluster.find_all("Job", "shop") == site.cluster.find_all("Pod", "shop") == []
        assert list((site.root / "cluster" / "pods").iterdir()) == []

    def test_a_job_deleted_without_a_policy_leaves_its_pods(self, site: Site) -> None:
        run_copy(site)
        site.batch.delete_namespaced_job("copy", "shop")
        site.cluster.step()
        assert site.cluster.find("Job", "shop", "copy") is None
        assert len(site.cluster.find_all("Pod", "shop")) == len(site.cluster.find_all("Secret", "shop")) == 1

    def test_a_job_expires_after_its_time(self, site: Site) -> None:
        run_copy(site, ttlSecondsAfterFinished=100)
        site.later(99)
        assert site.cluster.find("Job", "shop", "copy") is not None
        site.later(2)
        assert site.cluster.find("Job", "shop", "copy") is None

    def test_suspending_stops_what_runs(self, site: Site) -> None:
        running = stay(site)
        site.batch.patch_namespaced_job("stay", "shop", {"spec": {"suspend": True}})
        site.until(lambda: site.cluster.find("Pod", "shop", running.metadata.name) is None)
        assert conditions(site.batch.read_namespaced_job("stay", "shop")) == {"Suspended": "JobSuspended"}

    def test_a_job_template_never_changes(self, site: Site) -> None:
        site.batch.create_namespaced_job("shop", job("j", pod("x"), suspend=True))
        site.batch.patch_namespaced_job("j", "shop", {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}})  # not started: allowed
        change = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other"}]}}}}
        with pytest.raises(ApiException) as caught:
            site.batch.patch_namespaced_job("j", "shop", change)
        assert (caught.value.status, "field is immutable" in caught.value.body) == (422, True)


class TestLostNode:
    def test_the_process_of_a_lost_node_runs_on_and_no_second_pod_starts(self, site: Site) -> None:
        running = stay(site)
        site.cluster.set_node_ready("node-a", False)
        site.later(1)
        assert conditions(site.core.read_namespaced_pod(running.metadata.name, "shop")).get("Ready", "no") == "no"
        site.later(301)
        lost = pods_of(site, "stay")
        assert len(lost) == 1 and lost[0].metadata.deletion_timestamp is not None and lost[0].status.phase == "Running"
        with pytest.raises(ApiException) as caught:
            site.core.read_namespaced_pod_log(running.metadata.name, "shop")
        assert caught.value.status == 500
        log = site.root / "cluster" / "pods" / running.metadata.uid / "main.log"
        assert log.read_text() == "here\n"  # nobody asked it to leave
        site.cluster.set_node_ready("node-a", True)
        site.until(lambda: site.cluster.find("Pod", "shop", running.metadata.name) is None)
        assert site.batch.read_namespaced_job("stay", "shop").status.failed == 1

    @pytest.mark.parametrize("how", ["fenced", "deleted"])
    def test_a_fenced_node_gives_up_its_pods(self, site: Site, how: str) -> None:
        stay(site)
        site.cluster.set_node_ready("node-a", False)
        site.later(1)
        if how == "fenced":
            site.cluster.fence_node("node-a")
        else:
            site.core.delete_node("node-a")
        site.later(1)
        assert site.cluster.find_all("Pod", "shop") == []
        assert conditions(site.batch.read_namespaced_job("stay", "shop"))["Failed"] == "BackoffLimitExceeded"
