"""What the phone measured reaches `verify`."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from converters import export
from converters.coreml.device import DeviceMetrics, UnitMetrics
from ondevice import create_model

from .. import ROOT

UNIT = {
    "units": "CPU_AND_NE",
    "first_load_ms": 81.5,
    "median_ms": 0.712,
    "spread_ms": 0.03,
    "placement": {"Neural Engine": 170, "CPU": 3},
    "fallen_off": ["gather x"],
}
REPORT = {"name": "iPhone17,3, iOS 18.1", "package": "nano", "low_power": False}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    nano = create_model("shvit_nano.cifar10", pretrained=True)
    return export(nano, tmp_path_factory.mktemp("nano") / "nano.mlpackage", golden=False)


def test_the_app_writes_the_fields_that_are_read():
    swift = (ROOT / "apps/OnDeviceKit/Sources/OnDeviceCoreML/Bench.swift").read_text()
    first, second, *_ = re.findall(r"enum CodingKeys.*?\}", swift, re.S)

    def names(keys):
        plain = re.search(r"case ([\w, ]+)\n", keys)[1].split(", ")
        return {*plain, *re.findall(r'= "(\w+)"', keys)}

    assert names(first) == {f.name for f in fields(UnitMetrics)}
    assert names(second) >= {f.name for f in fields(DeviceMetrics)}


def test_it_is_shown_and_in_the_page_and_the_json(package, ondevice_, tmp_path):
    phone, page = tmp_path / "phone.json", tmp_path / "page.html"
    phone.write_text(json.dumps({**REPORT, "units": [UNIT]}))
    options = ("--no-baselines", "--report", phone)
    status, out, _ = ondevice_("verify", package, *options, "--html", page)
    assert status == 0
    assert "on iPhone17,3, iOS 18.1, nano" in out
    assert "0.71" in out
    assert "Neural Engine 170, CPU 3" in out
    assert "iPhone17,3" in page.read_text()
    assert "gather x" in page.read_text()
    _, out, _ = ondevice_("verify", package, *options, "--json")
    assert json.loads(out)["device"]["units"][0]["median_ms"] == 0.712


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[]", "it names no device"),
        ('{"name": "x", "units": []}', "it has no units"),
        (json.dumps({**REPORT, "units": [{**UNIT, "median_ms": "1"}]}), "no median_ms"),
        (json.dumps({**REPORT, "units": [7]}), "unit 0 has no units"),
    ],
)
def test_what_is_none_is_one_line(package, ondevice_, tmp_path, text, said):
    phone = tmp_path / "phone.json"
    phone.write_text(text)
    status, out, err = ondevice_("verify", package, "--report", phone)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_phone_and_this_machine_are_not_both_asked(package, ondevice_, tmp_path):
    (tmp_path / "phone.json").write_text(json.dumps({**REPORT, "units": [UNIT]}))
    options = ("--report", tmp_path / "phone.json", "--run-on", "auto")
    status, _, err = ondevice_("verify", package, *options)
    assert (status, err.count("\n")) == (2, 1)
    assert "--report is a phone's" in err
