"""Question -> prompt, rationale <-> tokens: the one tokenisation that SFT, DPO, sampling and evaluation share.

    codec = Codec.build(tokenizer, config.prompt, encoder_decoder=False)
    prompt_ids, target_ids = codec.prompt("6 boxes of 7 pens?"), codec.target("6*7=<<6*7=42>>42\\n#### 42")
    codec.text(target_ids)

A rationale is tokenised in pieces that end after an annotation's `=` and around what closes it, because that
is where decoding breaks off when the calculator writes the result; so training and decoding see the same ids.
Records keep rationales in the angle writing; a vocabulary without `<` (T5's) gets the bracket writing and, like
in the paper, one line of text whose steps end in `. `.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from selftrain.calculator.annotation import Style, drop_trivial, split_for_training, to_bracket
from selftrain.calculator.forcing import ForcingTables, build_tables
from selftrain.config import PromptConfig
from selftrain.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class Codec:
    """Texts to ids and back for one tokenizer and one `PromptConfig`."""

    tokenizer: PreTrainedTokenizerBase
    config: PromptConfig
    tables: ForcingTables
    style: Style
    encoder_decoder: bool

    @classmethod
    def build(cls, tokenizer: PreTrainedTokenizerBase, config: PromptConfig, encoder_decoder: bool) -> Codec:
        """The codec of a model.

        Raises:
            ConfigError: a vocabulary in which the asked annotation can't be written.
        """
        style: Style = annotation_style(tokenizer) if config.annotation == "auto" else config.annotation
        _check_writable(tokenizer, style)
        return cls(tokenizer, config, build_tables(tokenizer, style), style, encoder_decoder)

    def prompt(self, question: str) -> tuple[int, ...]:
        """Ids of the prompt; an encoder's prompt ends with the end token, as T5 was trained."""
        text = self.config.template.replace("{question}", question)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if self.encoder_decoder:
            return (*ids, self.eos_id)
        if self.config.bos and self.tokenizer.bos_token_id is not None:
            return (self.tokenizer.bos_token_id, *ids)
        return tuple(ids)

    def target(self, rationale: str) -> tuple[int, ...]:
        """Ids of a rationale in the records' angle writing, end token included."""
        text = self.written(rationale)
        first, *rest = split_for_training(text, self.style) or [""]
        if self.encoder_decoder:
            ids = list(self.tokenizer.encode(first, add_special_tokens=False))
        else:
            ids = list(self.tables.encode(self.config.separator + first))
        for piece in rest:
            ids.extend(self.tables.encode(piece))
        return (*ids, self.eos_id)

    def written(self, rationale: str) -> str:
        """A rationale as this vocabulary writes it."""
        if self.style == "angle":
            return rationale
        return one_line(to_bracket(drop_trivial(rationale)))

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of a completion's ids, without end token and separator."""
        kept = ids[:-1] if ids and ids[-1] == self.eos_id else ids
        text = str(self.tokenizer.decode(list(kept), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        separator = "" if self.encoder_decoder else self.config.separator
        return text.removeprefix(separator) if separator else text

    @property
    def eos_id(self) -> int:
        """The token that ends a completion."""
        return int(self.tokenizer.eos_token_id)


def chat_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[int, ...] | None:
    """The question as the model's own chat template asks it; None where the model has none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tuple(tokenizer.encode(str(text), add_special_tokens=False))


def annotation_style(tokenizer: PreTrainedTokenizerBase) -> Style:
    """Angle where the vocabulary can write `<<1=>>`, else bracket (T5 has no `<`)."""
    return "angle" if _can_write(tokenizer, "<<1+1=2>>") else "bracket"


def _can_write(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return False
    return text.replace(" ", "") in str(tokenizer.decode(ids)).replace(" ", "")


def _check_writable(tokenizer: PreTrainedTokenizerBase, style: Style) -> None:
    sample = "<<1+1=2>>" if style == "angle" else "[ 1 + 1 = 2 ]"
    if not _can_write(tokenizer, sample):
        raise ConfigError(
            f"This tokenizer cannot write {sample!r}, so the calculator could not be called.",
            "Set prompt.annotation to 'auto', or to the other writing.",
        )


def one_line(text: str) -> str:
    """Lines joined by `. `, as the paper writes T5's targets (T5 has no newline)."""
    lines = [line.strip() for line in text.split("\n")]
    return " ".join(line if re.search(r"[.!?]$", line) else f"{line}." for line in lines if line)
