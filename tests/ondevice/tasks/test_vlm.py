"""FastVLM: the numbers of transformers, prompts and answers."""

from __future__ import annotations

import json
import time

import mlx.core as mx
import numpy as np
import pytest

import ondevice
from ondevice.errors import ConfigError

from ...parity import weightgen
from ...parity.cases import OPERATIONS, Case
from .vlm import tiny
from .vlm.golden import FILE, positions

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
@pytest.mark.parametrize("operations", OPERATIONS)
def test_tokens_logits_and_answer_are_those_of_transformers(golden, reference, operations):
    with OPERATIONS[operations]():
        tokens = reference.tower.encoder.features(Case("fastvlm-256").input)
        projected = reference.tower.projector(tokens.reshape(1, 16, -1))
    assert error("projected", golden, projected) < 5e-5  # 2e-5, as the logits

    ids = golden["input_ids"][0].tolist()
    place = ids.index(-200)
    inputs = reference.splice([ids[:place], ids[place + 1 :]], list(projected))
    logits = reference.language(mx.array([]), input_embeddings=inputs[None])
    assert logits.shape == (1, 39, 1024)
    assert error("llm_logits", golden, logits) < 5e-5

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


def test_images_stand_where_the_prompt_says(vlm):
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
        ("<image> or <image>?", 1, "the prompt has <image> 2 times, 1 images are given"),
        ("x" * 500, 1, "the prompt has 562 tokens, 4 of them of images; .* at most 511"),
    ],
)
def test_prompts_that_cannot_be_are_refused_before_anything_is_encoded(
    vlm, monkeypatch, prompt, images, said
):
    monkeypatch.setattr(vlm, "tower", None)
    with pytest.raises(ConfigError, match=said):
        vlm.stream(prompt, [tiny.image()] * images)


# --- answers


def test_pieces_add_up_to_the_text(vlm):
    answer = vlm.stream("What?", tiny.image(), max_tokens=9)
    pieces = list(answer)
    assert "".join(pieces) == answer.text == str(answer) != ""
    assert answer.text == vlm.generate("What?", tiny.image(), max_tokens=9).text
    assert (answer.timings.tokens, answer.finish_reason) == (9, "length")


def test_the_image_and_the_question_decide_the_answer(vlm):
    def scores(prompt, seed):
        inputs = vlm.splice(vlm.tokenize(prompt, 1), [vlm.encode_image(tiny.image(seed))])
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
    whole = vlm.generate("What?", tiny.image(), **options).text
    stop = next(pair for i in range(20, 50) if (pair := whole[i : i + 2]).isascii())
    answer = vlm.generate("What?", tiny.image(), stop=[stop, "never said"], **options)
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    assert vlm.generate("What?", tiny.image(), stop="never", **options).text == whole


def test_a_seed_makes_chance_repeatable(vlm):
    def say(seed, **options):
        options = {"temperature": 1.0, "max_tokens": 12} | options
        return vlm.generate("What?", tiny.image(), seed=seed, **options).text

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1
    assert len({say(seed, top_p=1e-6) for seed in range(4)}) == 1


def test_an_answer_ends_with_the_context(vlm):
    texts = vlm.tokenize("x" * 400, 1)
    answer = vlm.generate("x" * 400, tiny.image(), max_tokens=10_000)
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
        vlm.stream("What?", tiny.image(), **options)


def test_the_first_token_takes_the_time_of_its_four_parts(vlm):
    start = time.perf_counter()
    t = vlm.generate("What?", tiny.image(77), max_tokens=5).timings
    passed = time.perf_counter() - start
    parts = (t.preprocess, t.encode, t.project, t.prefill)
    assert all(part > 0 for part in parts)
    assert t.time_to_first_token == sum(parts)
    assert 0.3 * passed < t.time_to_first_token + t.decode <= passed
    assert t.tokens_per_second == pytest.approx(4 / t.decode)
    assert t.image_tokens == 4
