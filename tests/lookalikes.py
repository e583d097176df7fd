"""Tokenizers that cut text as those of known families do, small enough to be made on the spot; special tokens last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHARS = "0123456789+-*/().=<>[] a\n"
BYTE = {" ": "Ġ", "\n": "Ċ"}


def wrapped(core: Tokenizer, **special: str) -> Any:
    wrapper: Any = PreTrainedTokenizerFast
    return wrapper(tokenizer_object=core, clean_up_tokenization_spaces=False, **special)


def byte_level(tokens: Sequence[str] = (), chars: str = CHARS, digits: int = 0, **special: str) -> Any:
    """Byte-level BPE of `chars`, `tokens` and their beginnings; with `digits`, numbers in groups of at most so many."""
    vocab = {BYTE.get(char, char): index for index, char in enumerate(chars)}
    merges: list[tuple[str, str]] = []
    for token in tokens:
        letters = [BYTE.get(char, char) for char in token]
        for size in range(2, len(letters) + 1):
            whole = "".join(letters[:size])
            if whole not in vocab:
                vocab[whole] = len(vocab)
                merges.append(("".join(letters[: size - 1]), letters[size - 1]))
    core = Tokenizer(models.BPE(vocab, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if digits:
        groups = pre_tokenizers.Split(Regex(f"[0-9]{{1,{digits}}}"), behavior="isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([groups, core.pre_tokenizer])
    core.decoder = decoders.ByteLevel()
    return wrapped(core, **special)


def metaspace_unigram(tokens: Sequence[str] = (), chars: str = CHARS) -> Any:
    """Like T5's: metaspace in front of everything, and no `<` or newline."""
    kept = [char for char in chars if char not in "<>\n "]
    names = dict.fromkeys(["▁", *kept, *("▁" + char for char in kept), *(token.replace(" ", "▁") for token in tokens)])
    vocab = [("<unk>", 0.0), ("</s>", 0.0), *((name, -4.0 + len(name)) for name in names)]
    core = Tokenizer(models.Unigram(vocab, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    return wrapped(core, eos_token="</s>", unk_token="<unk>")


def byte_fallback(
    tokens: Sequence[str] = (), chars: str = "0123456789+-*/().=>[]a", prepend: bool = True, **special: str
) -> Any:
    """Like Llama's: BPE with a metaspace normaliser and `<0x..>` tokens; what is not in `chars` exists as bytes only.

    Without `prepend`, as Gemma's: no space is put before a text.
    """
    vocab = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for char in "▁" + chars:
        vocab[char] = len(vocab)
    merges = []
    for token in tokens:
        token = token.replace(" ", "▁")
        if len(token) == 2 and token not in vocab and all(char in vocab for char in token):
            vocab[token] = len(vocab)
            merges.append((token[0], token[1]))
    core = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prepend else spaces
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prepend else parts)
    return wrapped(core, unk_token="<unk>", **special)
