"""Texts that a tokenizer may get wrong: scripts, emoji, entities, marks, special tokens."""

from __future__ import annotations

import random

SCRIPTS = (
    "\u6771\u4eac\u30bf\u30ef\u30fc \u732b\u306e\u5199\u771f \u4e00\u53ea\u53ef\u7231"
    "\u7684\u72d7 \ud55c\uad6d\uc5b4 \uc0ac\uc9c4 \uff76\uff80\uff76\uff85 \u304b\u3099 \u9f8d "
    "\u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628 "
    "\u05e2\u05d1 \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u03a3\u0391\u03a3 \u0130stanbul \u01c5 "
    "stra\u00dfe \ufb01n \u212b A\u030a \u00e9 e\u0301 \u00bd \u00b2 \u2167 \u2460 "
    "\uff11\uff12 \u2014 \u2026 \u2018x\u2019 \u201cy\u201d x\u00a0y x\u3000y x\u200by "
    "\u041f\u0440\u0438\u0432\u0435\u0442"
).split(" ")
EMOJI = (
    "\U0001f436 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2600\ufe0f "
    "\u2764\ufe0f\u200d\U0001f525 \U0001f44d\U0001f3fd \u2728 "
    "\U0001f937\U0001f3fb\u200d\u2640\ufe0f"
).split(" ")
ENTITIES = (
    "&amp; &lt;b&gt; &amp;amp; &nbsp; &copy &copyx &notit; &#65; &#x1F436; &#0; &#128; &#xD800;"
    " &#x110000; &#11; &#xFFFE; & && &; &#; &#x; &#xZ &CounterClockwiseContourIntegral; &bogus;"
    " &AMP &LT;x &NotEqualTilde; &#12a"
).split(" ")
QUOTED = "it's don't I'M we'll they've he'd you're 'sunny ''s x'S 't o'clock".split()
SPECIAL = (
    "<|endoftext|> <|startoftext|> <|ENDOFTEXT|> <<|endoftext|> <|endoftext|>>> <|endoftext"
    " <|StartOfText|>x"
).split()
MARKS = "!?.,;:-()[]{}\"'#@%&*/\\|<>~`^_+=$"
WORDS = "a photo of the cat dog black white small picture sunset over mountains".split()
KINDS = (WORDS, SCRIPTS, EMOJI, ENTITIES, QUOTED, SPECIAL)
SHARES = (60, 10, 8, 5, 8, 2)


def captions(count: int, words: tuple[str, ...] = ()) -> list[str]:
    """``count`` texts of 1 to 18 parts, the same each time; ``words`` are used as well."""
    rng = random.Random(0)
    kinds = [[*WORDS, *words], *KINDS[1:]]
    return [_caption(rng, kinds) for _ in range(count)]


def _caption(rng: random.Random, kinds: list[list[str]]) -> str:
    parts = [
        rng.choice(rng.choices(kinds, SHARES)[0]) if rng.random() < 0.9 else _odd(rng)
        for _ in range(rng.randint(1, 18))
    ]
    text = rng.choice([" "] * 6 + ["  ", "", "\t"]).join(parts)
    return rng.choice([str, str, str, str.upper, str.title])(text)


def _odd(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return str(rng.randint(0, 99999))
    return "".join(rng.choices(MARKS, k=rng.randint(1, 5)))
