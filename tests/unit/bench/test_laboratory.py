"""What the laboratory's part makes of what dom0 says, without a laboratory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import laboratory
from tools.bench.laboratory import QEMU, SYNCHRONOUS, Plan, Sample, table
from tools.cli.bench import run
from tools.cli.main import main


def test_cpu_time_is_found_behind_any_name() -> None:
    line = "7 (a) b (c) S 1 1 1 0 -1 4194304 1 0 0 0 12 3 0 0 20 0 1 0 100"
    assert laboratory._milliseconds(line) == 150


def test_the_time_of_the_samples_counts_a_burst_once() -> None:
    log = "(d1) BENCH vga-issue 100 64\n(d1) BENCH vga-drained 100 c8\n(d1) BENCH port-read 1 c8\n"
    assert laboratory._seconds(log, mhz=4e-4) == 1.0


def test_both_models_get_the_same_guest_and_devices_but_for_the_rig() -> None:
    qemu = laboratory._bench("n", "k", QEMU).splitlines()
    ours = laboratory._bench("n", "k", laboratory.OURS).splitlines()
    assert [a for a, b in zip(qemu, ours, strict=True) if a != b] == [
        'device_model_args_hvm=["-device", "edu"]'
    ]


@pytest.mark.parametrize(("cpus", "expected"), [(1, 1.0), (2, 0.5)])
def test_requests_may_cost_as_much_as_qemus_and_with_polling_half(
    cpus: int, expected: float
) -> None:
    access = {kind: [100.0] for kind in SYNCHRONOUS}
    made = table(Plan("4.17", cpus, Path("x.whl")), Sample(access=access), Sample(access=access))
    by_name = {figure.name: figure for figure in made.figures}
    assert {by_name[name].expected for name in SYNCHRONOUS.values()} == {expected}
    assert by_name["resident memory after SeaBIOS"].expected == 0.6


@pytest.mark.parametrize(("ours", "disturbed"), [(17.0, False), (30.0, True), (10.0, True)])
def test_a_disturbed_machine_is_told_by_what_xen_does_alone(ours: float, disturbed: bool) -> None:
    qemu, other = Sample(access={"in-xen": [16.0]}), Sample(access={"in-xen": [ours]})
    notes = " ".join(table(Plan("4.17", 1, Path("x.whl")), qemu, other).notes)
    assert ("something else ran" in notes) is disturbed


def test_the_floor_is_the_echos_port_read_as_a_ratio_of_qemus() -> None:
    qemu = Sample(access={"port-read": [200.0]})
    made = laboratory.floor(
        Plan("4.17", 2, Path("x.whl")), qemu, {"sleep": [100.0], "poll": [60.0]}
    )
    assert [figure.ratio for figure in made.figures] == [0.5, 0.3]
    assert made.title.endswith("2 emulated CPUs")


def test_no_rounds_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--native", "--rounds", "0"]) == 2
    assert "--rounds 0" in capsys.readouterr().err


def test_the_command_is_registered() -> None:
    from tools.cli.main import COMMANDS

    assert COMMANDS["bench"] == run.__module__
