"""Records <-> YAML: round trips, stable bytes, Forklift's condition shape, and refusal of what we do not know."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.copyspec import Verify
from reconciler.core.model import Milestone, ObjectRef, Result
from reconciler.core.record import Category, Claim, Condition, Instant, ObjectStatus, Outage, RunRecord, VmRecord
from reconciler.errors import TerminalError
from reconciler.manifests import record as records
from reconciler.manifests.record import parse_record

from .samples import AT, RUN, claim_of, run_of, vm_of

TEXT = st.text(max_size=12)
TIMES = st.integers(0, 4_000_000_000).map(lambda s: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=s))

st.register_type_strategy(str, TEXT)
st.register_type_strategy(datetime, TIMES)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(object, TEXT | st.integers() | st.booleans())

PROFILE = settings(max_examples=40, suppress_health_check=[HealthCheck.data_too_large])


@PROFILE
@given(st.builds(VmRecord))
def test_a_vm_comes_back_equal(record: VmRecord) -> None:
    assert parse_record("x", records.render_vm(record), VmRecord) == record


@PROFILE
@given(st.from_type(VmRecord))
def test_a_full_vm_comes_back_equal(record: VmRecord) -> None:
    assert parse_record("x", records.render_vm(record), VmRecord) == record


def test_an_instant_is_written_to_the_millisecond_and_every_other_time_to_the_second() -> None:
    exact = AT + timedelta(seconds=2, microseconds=345_678)
    data = records.render_vm(vm_of(RUN, "web", started=exact, outage=Outage(Instant(exact)))).decode()
    assert 'offAt: "2026-11-24T10:00:02.345Z"' in data and 'started: "2026-11-24T10:00:02Z"' in data
    back = parse_record("x", data.encode(), VmRecord)
    assert back.outage == Outage(Instant(AT + timedelta(seconds=2, milliseconds=345)))


@PROFILE
@given(st.from_type(RunRecord))
def test_a_run_comes_back_equal(record: RunRecord) -> None:
    assert parse_record("x", records.render_run(record), RunRecord) == record


@PROFILE
@given(st.from_type(Claim))
def test_a_claim_comes_back_equal(record: Claim) -> None:
    assert parse_record("x", records.render_claim(record), Claim) == record


@PROFILE
@given(st.from_type(ObjectStatus), st.sampled_from(["Plan", "Provider", "Migration"]))
def test_a_status_comes_back_equal(status: ObjectStatus, kind: str) -> None:
    record = ObjectStatus(kind, status.ref, status.conditions, status.observed_revision, status.phase, status.counts, status.details)
    assert parse_record("x", records.render_status(record), ObjectStatus) == record


def test_a_sample_with_every_part_comes_back_equal_and_as_the_same_bytes() -> None:
    record = vm_of(RUN, "web-01-abc")
    text = records.render_vm(record)
    again = parse_record("x", text, VmRecord)
    assert again == record
    assert records.render_vm(again) == text
    assert again.milestone is Milestone.CUTOVER
    assert again.frozen is not None and again.frozen.verify is Verify.SOURCE
    assert again.frozen.vm.labels == {"app.example.com/some_key": "snake_value"}


def test_times_lose_their_fraction_and_end_in_z() -> None:
    claim = claim_of("web", claimed=AT + timedelta(microseconds=999_999))
    assert b'claimed: "2026-11-24T10:00:00Z"\n' in records.render_claim(claim)


def test_fields_stand_in_declared_order_and_defaults_are_left_out() -> None:
    text = records.render_run(run_of(RUN, ("a", "b"), result=Result.FAILED)).decode()
    keys = [line.split(":")[0] for line in text.splitlines() if line[0] not in " -"]
    assert keys == ["run", "plan", "mode", "source", "destination", "revision", "origin", "started", "vms", "result"]


def test_conditions_have_forklifts_shape() -> None:
    condition = Condition("Ready", False, Category.REQUIRED, message="line one\nline two", last_transition_time=AT)
    text = records.render_status(ObjectStatus("Plan", ObjectRef("ns", "p"), (condition,), "c0ffee")).decode()
    assert text == (
        "apiVersion: forklift.konveyor.io/v1beta1\nkind: Plan\nmetadata:\n  namespace: ns\n  name: p\n"
        "status:\n  observedRevision: c0ffee\n  conditions:\n  - type: Ready\n"
        '    status: "False"\n    category: Required\n    message: |-\n      line one\n      line two\n'
        '    lastTransitionTime: "2026-11-24T10:00:00Z"\n'
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("mode: cold", "mode: lukewarm"), "$.mode"),
        (("mode: cold", "mode: cold\nfutureField: 1"), "futureField"),
        (("revision: abc", "revision: 5"), "revision"),
        (("started:", "begun:"), "started"),
        (("mode: cold", "mode: [cold"), "not valid YAML"),
        (('started: "2026-11-24T10:00:00Z"', 'started: "2026-11-24T10:00:00"'), "started"),
    ],
)
def test_what_we_do_not_know_is_an_error_that_names_the_file(change: tuple[str, str], word: str) -> None:
    text = records.render_run(run_of(RUN, ("a",))).decode()
    assert change[0] in text
    with pytest.raises(TerminalError) as caught:
        parse_record("runs/x/run.yaml", text.replace(*change).encode(), RunRecord)
    assert caught.value.reason == "RecordUnreadable"
    assert "runs/x/run.yaml" in caught.value.message
    assert word in caught.value.message


@pytest.mark.parametrize("status", ["true", '"true"', "Unknown"])
def test_a_condition_status_is_true_or_false_as_text(status: str) -> None:
    text = records.render_run(run_of(RUN, (), conditions=(Condition("Ready", True, Category.REQUIRED),)))
    assert text.count(b'status: "True"') == 1
    with pytest.raises(TerminalError):
        parse_record("x", text.replace(b'status: "True"', b"status: " + status.encode()), RunRecord)
