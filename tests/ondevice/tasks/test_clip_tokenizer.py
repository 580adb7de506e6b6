"""Texts to CLIP's numbers, with a small tokenizer and with open_clip's own."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest

from ondevice.errors import ConfigError
from ondevice.tasks.clip import Tokenizer

from ...parity import open_clip_tokens
from ...support import clips

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(clips.write_tokenizer(tmp_path_factory.mktemp("words")))


def words(tokenizer, text):
    row = tokenizer([text]).tolist()[0]
    return [tokenizer._bpe.id_to_token(i) for i in row[1 : row.index(tokenizer.end)]]


def test_a_text_is_start_words_end_and_zeros(tokenizer):
    rows = tokenizer(["a photo of cat", ""])
    assert (rows.shape, rows.dtype) == ((2, 77), mx.int32)
    assert rows[1].tolist() == [tokenizer.start, tokenizer.end] + [0] * 75
    assert words(tokenizer, "a photo of cat") == ["a</w>", "photo</w>", "of</w>", "cat</w>"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A  Photo\tof\nCAT ", "a photo of cat"),
        ("&lt;3 &amp;amp;", "<3 &"),
        ("it’s “the”", 'it\'s "the"'),  # noqa: RUF001
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_texts_are_cleaned_as_clip_does(tokenizer, text, same):
    assert words(tokenizer, text) == words(tokenizer, same)


def test_a_long_text_is_cut_and_keeps_its_end(tokenizer):
    row = tokenizer(["dog " * 5000]).tolist()[0]
    dog = tokenizer._bpe.token_to_id("dog</w>")
    assert row == [tokenizer.start, *[dog] * 75, tokenizer.end]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no readable tokenizer: No such file"),
        (b"{}", "no readable tokenizer: "),
        (b"\xff\x00", "no readable tokenizer: "),
    ],
)
def test_a_broken_tokenizer_is_one_line(tmp_path, content, said):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        Tokenizer(path)
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_refused(tmp_path):
    path = clips.write_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match=f"has {clips.VOCAB} tokens, expected at most 100"):
        Tokenizer(path, vocab=100)
    values = clips.tokenizer_json()
    values["added_tokens"][1]["content"] = "<end>"
    values["model"]["unk_token"] = None
    values["model"]["vocab"] = {
        k.replace("<|endoftext|>", "<end>"): v for k, v in values["model"]["vocab"].items()
    }
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"no tokenizer of this CLIP"):
        Tokenizer(path)


def test_tokens_are_those_of_open_clip(tmp_path):
    """Its own merges, read by ours; what is not cleaned by ftfy is the same."""
    golden = json.loads(open_clip_tokens.FILE.read_text())
    assert golden["texts"] == open_clip_tokens.TEXTS
    path = clips.write_tokenizer(tmp_path, golden["merges"])
    found = Tokenizer(path)(golden["texts"]).tolist()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    numbers = json.loads(path.read_text())["model"]["vocab"]
    for row, tokens in zip(found, golden["tokens"], strict=True):
        wanted = [numbers[names.get(token, token)] for token in tokens]
        assert row == wanted + [0] * (77 - len(wanted))
