"""The log's context fields, with real threads."""

from __future__ import annotations

import io
import json
import logging
import threading

from reconciler import log

logger = logging.getLogger("reconciler.test")


def test_threads_have_their_own_fields() -> None:
    out = io.StringIO()
    log.configure("json", "info", out)
    both = threading.Barrier(2)

    def work(vm: str) -> None:
        with log.fields(vm=vm):
            both.wait(timeout=5)
            logger.info("working")
            both.wait(timeout=5)

    workers = [threading.Thread(target=work, args=(vm,)) for vm in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    log.configure("human", "info", io.StringIO())
    assert sorted(json.loads(line)["vm"] for line in out.getvalue().splitlines()) == ["a", "b"]
