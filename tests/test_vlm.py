"""FastVLM: the numbers of transformers, answers, and the commands."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.cli import run
from ondevice.errors import ConfigError, ImageError
from ondevice.safetensors import read_safetensors
from ondevice.vlm import Vision, load_vision, write_tokens

from .parity import weightgen
from .parity.cases import Case
from .test_hub import COMMIT, put
from .vlm import tiny
from .vlm.golden import FILE, positions

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture(scope="module")
def vlm(folder):
    return ondevice.load_vlm(folder, vision=Vision(size=128))


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(tiny.picture()).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def ondevice_(capsys, folder):
    """Run a command line with the tiny model: its exit status, stdout, stderr."""

    def call(*args):
        status = run([*args, "--model", str(folder)])
        return status, *capsys.readouterr()

    return call


# --- the numbers of transformers


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def reference(golden, tmp_path_factory):
    """The reference's FastVLM, in a folder like Apple's."""
    case, meta = Case("fastvlm-256"), json.loads(golden["meta"].tobytes())
    sizes = meta["llm"]
    language = weightgen.state_dict(case.meta["seed"], meta["shapes"], {})
    arrays = case.weights() | {k: mx.array(v) for k, v in language.items()}
    config = {
        "model_type": "llava_qwen2",
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "rope_theta": sizes["rope_theta"],
        "rms_norm_eps": sizes["rms_eps"],
    }
    kept = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    return ondevice.load_vlm(tiny.write(tmp_path_factory.mktemp("golden"), kept, config))


def error(name, golden, found):
    """The largest of the kept values, over the spread of all."""
    kept = np.array(found).ravel()[positions(found.size)]
    return np.abs(kept - golden[name]).max() / golden[f"{name}.std"]


@pytest.mark.slow
def test_tokens_logits_and_answer_are_those_of_transformers(golden, reference):
    tokens = reference.tower.encoder.features(Case("fastvlm-256").input)
    projected = reference.tower.projector(tokens.reshape(1, 16, -1))
    assert error("projected", golden, projected) < 1e-4

    ids = golden["input_ids"][0].tolist()
    place = ids.index(-200)
    inputs = reference.splice([ids[:place], ids[place + 1 :]], list(projected))
    logits = reference.language(mx.array([]), input_embeddings=inputs[None])
    assert logits.shape == (1, 39, 1024)
    assert error("llm_logits", golden, logits) < 1e-3

    cache = [*reference._responses(inputs, 8, 0.0, 1.0, None)]
    assert [response.token for response in cache] == golden["greedy"].tolist()


# --- prompts


def text_of(vlm, prompt, images):
    texts = vlm.tokenize(prompt, images)
    return "[image]".join(vlm.tokenizer.decode(ids) for ids in texts)


BEGIN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("prompt", "images", "said"),
    [
        ("What?", 1, "[image]\nWhat?"),
        ("What?", 2, "[image]\n[image]\nWhat?"),
        ("Is <image> like <image>?", 2, "Is [image] like [image]?"),
        ("Hello", 0, "Hello"),
    ],
)
def test_prompts_are_what_the_model_was_trained_on(vlm, prompt, images, said):
    assert text_of(vlm, prompt, images) == BEGIN + said + END


def test_special_tokens_of_the_prompt_are_single_tokens(vlm):
    (ids,) = vlm.tokenize("Hello", 0)
    assert (ids.count(257), ids.count(258)) == (3, 2)


def test_pictures_stand_where_the_prompt_says(vlm):
    images = [mx.full((4, tiny.DIM), float(i)) for i in (1, 2)]
    texts = vlm.tokenize("a<image>b<image>c", 2)
    inputs = vlm.splice(texts, images)
    first = len(texts[0])
    second = first + 4 + len(texts[1])
    assert len(inputs) == sum(map(len, texts)) + 8
    for start, value in ((first, 1), (second, 2)):
        assert mx.array_equal(inputs[start : start + 4], mx.full((4, tiny.DIM), float(value)))
    assert mx.array_equal(inputs[:first], vlm.language.model.embed_tokens(mx.array(texts[0])))


@pytest.mark.parametrize(
    ("prompt", "images", "said"),
    [
        ("", 1, "the prompt is empty"),
        (" \n", 1, "the prompt is empty"),
        ("<image>", 1, "the prompt is empty"),
        ("<image> or <image>?", 1, "the prompt has 2 places for images, 1 are given"),
        ("x" * 500, 1, "the prompt has 562 tokens, 4 of them of images; .* at most 511"),
    ],
)
def test_prompts_that_cannot_be_are_refused_before_anything_is_encoded(
    vlm, monkeypatch, prompt, images, said
):
    monkeypatch.setattr(vlm, "tower", None)
    with pytest.raises(ConfigError, match=said):
        vlm.stream(prompt, [tiny.picture()] * images)


# --- answers


def test_pieces_add_up_to_the_text(vlm):
    answer = vlm.stream("What?", tiny.picture(), max_tokens=9)
    pieces = list(answer)
    assert "".join(pieces) == answer.text == str(answer) != ""
    assert answer.text == vlm.generate("What?", tiny.picture(), max_tokens=9).text
    assert (answer.timings.tokens, answer.finish_reason) == (9, "length")


def test_the_picture_and_the_question_decide_the_answer(vlm):
    def scores(prompt, seed):
        inputs = vlm.splice(vlm.tokenize(prompt, 1), [vlm.encode_image(tiny.picture(seed))])
        return vlm.language(mx.array([]), input_embeddings=inputs[None])[0, -1]

    assert mx.array_equal(scores("What?", 0), scores("What?", 0))
    assert mx.abs(scores("What?", 0) - scores("What?", 1)).max() > 1e-3
    assert mx.abs(scores("What?", 0) - scores("Why not?", 0)).max() > 1e-3


def test_an_answer_ends_where_the_model_ends_it(vlm, monkeypatch):
    whole = [r.token for r in vlm._responses(mx.ones((5, tiny.DIM)), 9, 0.0, 1.0, None)]
    monkeypatch.setattr(vlm.tokenizer, "eos_token_ids", {whole[4]})
    ended = [*vlm._responses(mx.ones((5, tiny.DIM)), 9, 0.0, 1.0, None)]
    assert ended[-1].finish_reason == "stop"
    assert len(ended) == whole.index(whole[4]) + 1


def test_an_answer_ends_before_the_text_to_stop_at(vlm):
    options = {"max_tokens": 60, "temperature": 1.0, "seed": 3}
    whole = vlm.generate("What?", tiny.picture(), **options).text
    stop = next(pair for i in range(20, 50) if (pair := whole[i : i + 2]).isascii())
    answer = vlm.generate("What?", tiny.picture(), stop=[stop, "never said"], **options)
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    assert vlm.generate("What?", tiny.picture(), stop="never", **options).text == whole


def test_a_seed_makes_chance_repeatable(vlm):
    def say(seed, **options):
        options = {"temperature": 1.0, "max_tokens": 12} | options
        return vlm.generate("What?", tiny.picture(), seed=seed, **options).text

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1
    assert len({say(seed, top_p=1e-6) for seed in range(4)}) == 1


def test_an_answer_ends_with_the_context(vlm):
    texts = vlm.tokenize("x" * 400, 1)
    answer = vlm.generate("x" * 400, tiny.picture(), max_tokens=10_000)
    assert answer.timings.tokens == vlm.context - sum(map(len, texts)) - 4
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5, "max_tokens": -1}, "max_tokens=-1.*; top_p=1.5"),
    ],
)
def test_impossible_sampling_is_refused(vlm, options, said):
    with pytest.raises(ConfigError, match=said):
        vlm.stream("What?", tiny.picture(), **options)


def test_the_first_token_takes_the_time_of_its_four_parts(vlm):
    start = time.perf_counter()
    t = vlm.generate("What?", tiny.picture(77), max_tokens=5).timings
    passed = time.perf_counter() - start
    parts = (t.preprocess, t.encode, t.project, t.prefill)
    assert all(part > 0 for part in parts)
    assert t.time_to_first_token == sum(parts)
    assert 0.3 * passed < t.time_to_first_token + t.decode <= passed
    assert t.tokens_per_second == pytest.approx(4 / t.decode)
    assert t.image_tokens == 4


# --- commands


def test_describe_prints_the_answer_as_it_comes(ondevice_, photo, vlm, monkeypatch):
    wanted = vlm.generate("Describe the image.", photo, max_tokens=7).text
    status, out, err = ondevice_(
        "describe", photo, "--size", "128", "--max-tokens", "7", "--timings"
    )
    assert (status, out) == (0, f"{wanted}\n")
    assert "first token after" in err
    assert "4 of 81 prompt tokens are of images" in err


def test_describe_names_what_it_cannot_use_and_goes_on(ondevice_, photo, tmp_path):
    Image.new("RGB", (1, 10_000)).save(tmp_path / "line.png")
    bad = [str(tmp_path / "line.png"), "nowhere.png"]
    args = ("--size", "128", "--max-tokens", "3", "--json")
    status, out, err = ondevice_("describe", bad[0], photo, bad[1], *args)
    report = json.loads(out)
    assert status == 2
    assert [r["images"] for r in report["results"]] == [[photo]]
    assert report["results"][0]["timings"]["image_tokens"] == 4
    assert [line.split()[:2] for line in err.splitlines() if "licence" not in line] == [
        ["error:", bad[0]],
        ["error:", bad[1]],
    ]


def test_describe_takes_pictures_together(ondevice_, photo):
    args = ("--size", "128", "--max-tokens", "3", "--json", "--together")
    status, out, _ = ondevice_("describe", photo, photo, *args)
    (result,) = json.loads(out)["results"]
    assert (status, result["images"]) == (0, [photo, photo])
    assert result["timings"]["image_tokens"] == 8


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--prompt", ""], "error: the prompt is empty"),
        (["--prompt", "x" * 999], "error: the prompt has"),
        (["--size", "100"], "error: impossible vision: size=100"),
        (["--temperature", "-1"], "error: impossible sampling: temperature=-1"),
    ],
)
def test_describe_refuses_in_a_line(ondevice_, photo, args, said):
    status, out, err = ondevice_("describe", photo, *args)
    lines = [line for line in err.splitlines() if "licence" not in line]
    assert (status, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(said)


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(ondevice_, photo, monkeypatch):
    said = []
    module = importlib.import_module("mlx_lm.generate")  # mlx_lm.generate is a function
    real = module.stream_generate

    def interrupted(*args, **options):
        for i, response in enumerate(real(*args, **options)):
            if i == 5:
                raise KeyboardInterrupt
            said.append(response.text)
            yield response

    monkeypatch.setattr(module, "stream_generate", interrupted)
    status, out, err = ondevice_("describe", photo, "--size", "128")
    assert (status, out) == (130, "".join(said) + "\n")
    assert "".join(said)
    assert err.splitlines()[-1] == "interrupted"


def test_bench_vlm_shows_cost_against_tokens(ondevice_, photo):
    args = ("--size", "64", "--size", "256", "--repeat", "1")
    status, out, _ = ondevice_("bench-vlm", photo, *args)
    header, *rows = out.splitlines()
    assert status == 0
    assert "first token" in header
    assert [row.split()[:3] for row in rows] == [
        ["64", "1", "-"],
        ["256", "16", "-"],
        ["256", "4", "dct"],
        ["256", "4", "merge"],
    ]
    assert all("%" in row for row in rows[2:])

    status, out, _ = ondevice_("bench-vlm", *args, "--tokens", "9", "--method", "dct", "--json")
    costs = json.loads(out)["costs"]
    assert [c["vision"]["tokens"] for c in costs] == [None, None, 9]
    assert costs[1]["prompt_tokens"] - costs[2]["prompt_tokens"] == 7
    assert all(
        c["seconds"]["encode"] > 0 and c["seconds"]["time_to_first_token"] > 0 for c in costs
    )


def test_encode_writes_all_tokens(ondevice_, photo, vlm, tmp_path):
    out = tmp_path / "tokens.safetensors"
    args = (photo, "nowhere.png", photo, "--tokens", "--out", str(out))
    status, said, err = ondevice_("encode", *args)
    assert (status, said) == (1, f"{out}: 2 x 256 tokens x {tiny.DIM}\n")
    assert "nowhere.png" in err
    arrays, metadata = read_safetensors(out)
    assert mx.array_equal(arrays["tokens"][1], vlm.encode_image(photo, vision=Vision()))
    info = json.loads(metadata["ondevice.tokens"])
    assert info["paths"] == [photo, photo]
    assert info["vision"]["size"] == 1024
    status, _, err = ondevice_("encode", *args)
    assert (status, f"{out} exists" in err) == (2, True)


def test_tokens_may_be_the_encoders(folder, photo, vlm, tmp_path):
    out, vision = tmp_path / "t.safetensors", Vision(size=128, tokens=1)
    assert write_tokens(load_vision(folder), [photo], out, vision=vision, projected=False) == 1
    arrays, _ = read_safetensors(out)
    assert mx.array_equal(arrays["tokens"], vlm.encoder_tokens(photo, vision=vision))
    with pytest.raises(ConfigError, match=r"has to end with \.safetensors"):
        write_tokens(vlm.tower, [photo], tmp_path / "t.npz")
    with pytest.raises(ImageError, match=r"no\.png"):
        write_tokens(vlm.tower, ["no.png"], tmp_path / "u.safetensors")
    assert not (tmp_path / "u.safetensors").exists()


# --- from the hub's cache to a package


def test_from_the_hubs_cache_to_an_answer_and_a_package(folder, photo, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    put(tmp_path / "home" / "hub", files, repo="apple/FastVLM-0.5B", commit=COMMIT)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}

    def command(*args):
        done = subprocess.run(
            [sys.executable, "-m", "ondevice", *args, "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == done.stderr.count("apple-amlr")
        return json.loads(done.stdout)

    report = command("describe", photo, "--size", "128", "--max-tokens", "4")
    assert report["model"] == "apple/FastVLM-0.5B"
    assert report["results"][0]["timings"]["tokens"] == 4

    path = tmp_path / "encoder.mlpackage"
    wanted = ("--image-features", "--projected", "--size", "128", "--out", str(path))
    report = command("export", "apple/FastVLM-0.5B", *wanted)
    assert (report["license"], report["outputs"]) == ("apple-amlr", "image_features, projected")
    check_package(path, folder, photo)


def check_package(path, folder, photo):
    from converters.coreml.loaded import load_package
    from converters.verify import verify

    package = load_package(path)
    shapes = {name: feature.shape for name, feature in package.outputs.items()}
    assert shapes == {"image_features": (1, 4, 256), "projected": (1, 4, tiny.DIM)}
    report = verify(load_vision(folder).exportable(), package, [photo])
    assert {c.output for c in report.comparisons} == shapes.keys()
    assert all(c.psnr_db > 55 and c.finite for c in report.comparisons)


def test_the_encoder_alone_has_no_projected_tokens(tmp_path):
    from converters.export import export
    from ondevice import create_model

    model = create_model("fastvithd", embed_dim=(8, 16, 32, 64, 128), depth=(1,) * 5)
    with pytest.raises(ConfigError, match="has no projector; take a whole FastVLM"):
        export(model, tmp_path / "x.mlpackage", outputs=("projected",), size=64)
