"""``ondevice doctor``: what it says of a machine, and of one that something is wrong with."""

import json

import pytest

from ondevice.cli import doctor, run


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {found["subject"]: found for found in json.loads(capsys.readouterr().out)}


def test_a_machine_with_everything_is_fine(capsys):
    assert run(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert {"Python", "chip", "mlx", "coremltools", "[vlm]", "weights"} <= found.keys()
    assert not [f for f in found.values() if f["severity"] == "error"]
    assert found["coremltools"]["severity"] == "fine"


def test_a_version_out_of_range_is_an_error_with_the_command_that_mends_it(capsys, monkeypatch):
    known = doctor.version
    monkeypatch.setattr(doctor, "version", lambda n: "8.3" if n == "coremltools" else known(n))
    assert run(["doctor", "--json"]) == 1
    found = findings(capsys)["coremltools"]
    assert (found["severity"], found["found"]) == ("error", "8.3")
    assert found["remedy"] == "pip install 'coremltools==9.0'"


def test_a_missing_package_is_an_error_and_a_missing_extra_a_note(capsys, monkeypatch):
    known = doctor.version

    def version(name: str) -> str:
        if name in ("mlx", "mlx-lm"):
            raise doctor.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(doctor, "version", version)
    assert run(["doctor", "--json"]) == 1
    found = findings(capsys)
    assert (found["mlx"]["severity"], found["mlx"]["found"]) == ("error", "not installed")
    assert (found["[vlm]"]["severity"], found["[vlm]"]["found"]) == (
        "note",
        "mlx-lm not installed",
    )
    assert found["[vlm]"]["remedy"] == "pip install 'ondevice[vlm]'"
    assert not {"[test]", "[browser]"} & found.keys()  # of those who work on ondevice


def test_a_mac_is_asked_for_rosetta_for_its_release_and_for_core_ml(capsys, monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    monkeypatch.setattr(doctor, "_sysctl", {"sysctl.proc_translated": "1"}.get)
    monkeypatch.setattr(doctor.platform, "mac_ver", lambda: ("13.6", ("", "", ""), "x86_64"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    checks = (doctor._python, doctor._system, doctor._core_ml)
    found = {f.subject: f for check in checks for f in check()}
    assert [f.severity for f in found.values()] == ["error"] * 3
    assert "Rosetta" in found["Python"].remedy
    assert "macOS 14" in found["system"].remedy


def test_a_full_disk_is_said(monkeypatch, tmp_path):
    usage = doctor.shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    found = doctor._disk("weights", tmp_path / "not yet" / "made", "set HF_HOME")
    assert (found.severity, found.remedy) == ("warning", "set HF_HOME")


def test_a_table_for_people(capsys):
    assert run(["doctor"]) == 0
    assert "what helps" in capsys.readouterr().out
