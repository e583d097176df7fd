"""The encoder-decoder task: random weights of Flan-T5-small's shape, K = 8, length forced.

    task = t5_task(folder, say, lengths=[60, 75, 48])     # prompts of random words, as long as the main task's

The head (untied, no bias) is scaled so that logits have a standard deviation of `LOGIT_SD`: samples differ, and the
end token, whose row is zero, has a chance below 1e-8 a token. So every completion has exactly `max_new_tokens`;
`results.summary` refuses any other length. Both systems sample these same weights, so neither needs a logits processor
for it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.work import Question, Say, Task
from selftrain.config import PromptConfig
from selftrain.seeding import stream
from selftrain.stagefolder import digest_of
from selftrain.weights import weights_digest

LOGIT_SD = 3.6  # over the temperature: 5
SAMPLES, TEMPERATURE, TOKENS, QUESTIONS = 8, 0.7, 64, 64


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of an encoder-decoder; the defaults are Flan-T5-small's."""

    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    vocab_size: int = 32_128
    num_words: int = 32_100  # ids that the tokenizer knows


def t5_task(
    folder: Path, say: Say, lengths: Sequence[int], shape: Shape | None = None, num_questions: int = QUESTIONS
) -> Task:
    """The task, with models kept in `folder`. `lengths` are those of the prompts, over and over."""
    shape = shape or Shape()
    model = folder / f"t5-{digest_of(dataclasses.asdict(shape))[:8]}"
    if not model.is_dir():
        say("Making random weights of Flan-T5-small's shape; they are kept for the next time.")
        make_t5(model, shape)
    work, search = (
        tuple(_words(f"{part}-{index}", lengths[index % len(lengths)], shape) for index in range(count))
        for part, count in (("work", num_questions), ("search", num_questions // 2))
    )
    return Task(
        "t5", str(model), weights_digest(model), PromptConfig(template="{question}").model_dump(), SAMPLES,
        TEMPERATURE, TOKENS, work, search, ("random weights: nothing to judge",), forced_length=True,
    )  # fmt: skip


def _words(name: str, length: int, shape: Shape) -> Question:
    """A prompt of random words, ended as an encoder's prompts are."""
    draw = stream("benchmark-t5", name)
    words = (draw.randrange(3, shape.num_words) for _ in range(length - 1))
    return Question(f"t5/{name}", (*words, 1), None, "random words")


def make_t5(folder: Path, shape: Shape) -> None:
    """Write the model and a tokenizer of as many words: that of the toy, and made-up words."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    from selftrain.toy import make_toy

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_toy("random-t5", temporary)
    tokenizer: Any = AutoTokenizer.from_pretrained(temporary)
    tokenizer.add_tokens([f"word{number}" for number in range(shape.num_words - len(tokenizer))])
    make: Any = T5Config
    config = make(
        vocab_size=shape.vocab_size, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff,
        num_layers=shape.num_layers, num_heads=shape.num_heads, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: Any = T5ForConditionalGeneration(config)
    head = module.get_output_embeddings().weight.data  # [V, D], entries of standard deviation 1
    head.mul_(LOGIT_SD / shape.d_model**0.5)
    head[tokenizer.eos_token_id] = 0
    module.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.replace(folder)
