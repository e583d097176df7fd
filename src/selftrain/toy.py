"""Random models with a tokenizer trained on the spot: `random-llama`, `random-t5`, `small-t5`.

The first two have two layers and make the whole loop runnable in seconds, with no weights at all (`smoke`,
`smoke-t5`, tests). `small-t5` has 2 M parameters and a vocabulary of whole words and single digits, those of
gsm_symbolic (extra `gym`): it learns some of a few templates from nothing (recipe `templates-t5`: 22 % of new
questions), so that the encoder-decoder path can be judged without T5's weights. The T5 ones have no `<`
and no newline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain.config import DataSpec
from selftrain.data.arithmetic import problems
from selftrain.data.reasoning_gym import load_reasoning_gym

NAMES = ("random-llama", "random-t5", "small-t5")
T5_SIZES = {
    "random-t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "tie_word_embeddings": False},
    # transformers always ties T5's head; True is the first T5's scaling, without which training starts at a loss of 55
    "small-t5": {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 4, "tie_word_embeddings": True},
}
WORDS = DataSpec(source="reasoning_gym:gsm_symbolic", params={"seed": 80_000_000, "size": 4000})


def make_toy(name: str, folder: Path, seed: int = 0) -> None:
    """Write a random model and its tokenizer as a plain transformers folder.

    Raises:
        DataError: `small-t5` without reasoning-gym.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # saving a toy is nothing to tell of
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = {"random-llama": _llama_tokenizer, "random-t5": _t5_tokenizer, "small-t5": _word_tokenizer}
        tokenizer = make[name]()
        module = _t5(tokenizer, **T5_SIZES[name]) if name in T5_SIZES else _llama(tokenizer)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _corpus() -> list[str]:
    texts = [text for p in problems(seed=0, size=400) for text in (p.question, p.rationale or "")]
    return [*texts, "Question: Answer:", "0 1 2 3 4 5 6 7 8 9 . , $ % ( ) + - * / = # [ ]"]


def _llama_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")


def _t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=True)]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    letters = "".join(chr(code) for code in range(33, 127) if chr(code) not in "<>")
    core.train_from_iterator([*(_strip(text) for text in _corpus()), " ".join(letters)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def _word_tokenizer() -> Any:
    """Words, single digits, punctuation marks and the space between them, so that any number can be copied."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.WordLevelTrainer(vocab_size=8000, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    rows = load_reasoning_gym(WORDS, True).problems
    texts = [text for p in rows for text in (p.question, p.rationale or "")]
    core.train_from_iterator(map(_strip, [*texts, *_corpus()]), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def _strip(text: str) -> str:
    return text.replace("<<", " [ ").replace(">>", " ] ").replace("\n", " ")


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5(tokenizer: Any, **sizes: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config: Any = T5Config
    return T5ForConditionalGeneration(
        config(
            vocab_size=len(tokenizer),
            **sizes,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
