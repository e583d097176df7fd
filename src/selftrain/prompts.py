"""Question -> prompt, rationale <-> tokens: the one tokenisation that SFT, DPO, sampling and evaluation share.

    codec = Codec.build(tokenizer, config.prompt, encoder_decoder=False)
    prompt_ids, target_ids = codec.prompt("6 boxes of 7 pens?"), codec.target("6*7=<<6*7=42>>42\\n#### 42")
    codec.text(target_ids)

A rationale is tokenised in pieces that end after an annotation's `=` and around what closes it, because that
is where decoding breaks off when the calculator writes the result; so training and decoding see the same ids.
Records keep rationales in the angle writing; a vocabulary without `<` (T5's) gets the bracket writing and, like
in the paper, one line of text whose steps end in `. `.

With `prompt.chat_template` a question is the user's message of a chat template, carried out in transformers' sandbox.
Left out: a system prompt (a chat template can hold one) and what a chat template writes after an answer.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from selftrain.calculator.annotation import Style, drop_trivial, find, split_for_training, to_bracket
from selftrain.calculator.forcing import ForcingTables, build_tables
from selftrain.config import PromptConfig
from selftrain.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "How many pens are in 6 boxes?"
# Llama's default date; the newline behind it is not written, and a template's own white space stays as it is.
FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}\n"


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
            ConfigError: a vocabulary in which the asked annotation can't be written, or a chat template that is not
                there, cannot be carried out, or leaves the question out.
            ModelError: the tokenizer's own chat template is asked for and cannot be carried out.
        """
        style: Style = annotation_style(tokenizer) if config.annotation == "auto" else config.annotation
        _check_writable(tokenizer, style)
        codec = cls(tokenizer, config, build_tables(tokenizer, style), style, encoder_decoder)
        if PROBE not in codec.prompt_text(PROBE):
            raise ConfigError(
                f"prompt.chat_template leaves the question out: it gives {codec.prompt_text(PROBE)[:120]!r}.",
                "It must show `content` of each of its `messages`.",
            )
        return codec

    def prompt(self, question: str) -> tuple[int, ...]:
        """Ids of the prompt; an encoder's prompt ends with the end token, as T5 was trained."""
        ids = tuple(self.tokenizer.encode(self.prompt_text(question), add_special_tokens=False))
        bos_id = self.tokenizer.bos_token_id
        if self.encoder_decoder:
            return (*ids, self.eos_id)
        if self.config.bos and bos_id is not None and ids[:1] != (bos_id,):
            return (bos_id, *ids)
        return ids

    def prompt_text(self, question: str) -> str:
        """The prompt that `prompt` has the ids of; of special tokens it has those that a chat template writes."""
        chat = self.config.chat_template
        return self.message(question) if chat is None else chat_text(self.tokenizer, chat, self.message(question))

    def message(self, question: str) -> str:
        """The question in the template, before a chat template goes around it."""
        return self.config.template.replace("{question}", self._spaced(question))

    def base_prompt(self, question: str) -> tuple[int, ...]:
        """As the untrained model is asked: through its own chat template where it has one and the config names none.

        Raises:
            ModelError: its chat template cannot be carried out.
        """
        if self.config.chat_template is not None or not has_chat_template(self.tokenizer):
            return self.prompt(question)
        return tuple(self.tokenizer.encode(chat_text(self.tokenizer, "model", question), add_special_tokens=False))

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
            return self._spaced(rationale)
        return one_line(self._spaced(to_bracket(drop_trivial(rationale))))

    def _spaced(self, text: str) -> str:
        return text if self.config.spacing == "plain" else space_operators(text, self.style)

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of a completion's ids, without end token and separator."""
        separator = "" if self.encoder_decoder else self.config.separator
        return self._decoded(self._without_end(ids)).removeprefix(separator)

    def continuation(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of a completion's ids as it goes on after the prompt: with the separator, without the end token.

        Decoded behind another token, since some tokenizers drop the space at the beginning of a text.
        """
        if self.encoder_decoder:
            return self.text(ids)
        before = self.tokenizer.encode("=", add_special_tokens=False)
        return self._decoded([*before, *self._without_end(ids)]).removeprefix(self._decoded(before))

    def _without_end(self, ids: tuple[int, ...] | list[int]) -> tuple[int, ...] | list[int]:
        return ids[:-1] if ids and ids[-1] == self.eos_id else ids

    def _decoded(self, ids: tuple[int, ...] | list[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def eos_id(self) -> int:
        """The token that ends a completion."""
        return int(self.tokenizer.eos_token_id)


def has_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer brings a chat template of its own."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_text(tokenizer: PreTrainedTokenizerBase, template: str, message: str) -> str:
    """A user's message in a chat template, up to where the answer begins: a Jinja text, or "model" for the tokenizer's.

    A date that a template writes (`strftime_now`) would change prompts from day to day, within a run too: it is fixed.

    Raises:
        ConfigError: the tokenizer has none, or the Jinja text cannot be carried out.
        ModelError: the tokenizer's own cannot be carried out.
    """
    import jinja2

    own = template == "model"
    if own and not has_chat_template(tokenizer):
        raise ConfigError(
            "prompt.chat_template is 'model', and the tokenizer of this model has no chat template.",
            "Set it to null, or to the text of a Jinja template.",
        )
    try:
        source = tokenizer.get_chat_template() if own else template
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            chat_template=FIXED_DATE + source if "strftime_now" in source else source,
            tokenize=False,
            add_generation_prompt=True,
        )
    except (
        jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        why = f"cannot be carried out ({type(error).__name__}: {str(error)[:200]})."
        if not own:
            hint = "Mend it: Jinja, with what transformers lets a chat template use."
            raise ConfigError(f"prompt.chat_template {why}", hint) from error
        raise ModelError(
            f"The model's chat template {why}",
            "Mend or remove `chat_template` in its tokenizer_config.json, or chat_template.jinja.",
        ) from error
    return str(text)


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


def space_operators(text: str, style: Style) -> str:
    """One space around operators and hyphens and after a dollar sign; annotations and the answer's line stay.

    >>> space_operators("Tom-boy pays $5+3=$ [ 5 + 3 = 8 ] 8\n#### -8", "bracket")
    'Tom - boy pays $ 5 + 3 = $ [ 5 + 3 = 8 ] 8\n#### -8'
    """
    body, mark, answer = text.rpartition("\n####")
    if not mark:
        body, answer = text, ""
    pieces: list[str] = []
    position = 0
    for annotation in find(body, style):
        pieces += [_space(body[position : annotation.start]), body[annotation.start : annotation.end]]
        position = annotation.end
    return "".join([*pieces, _space(body[position:])]) + mark + answer


def _space(text: str) -> str:
    parts = re.split(r"([-+*/=])", re.sub(r"\$(?=[\d.])", "$ ", text))  # text, operator, text, ...
    for index in range(0, len(parts) - 1, 2):
        parts[index] = parts[index].rstrip(" ")
        parts[index + 1] = f" {parts[index + 1]} "
        parts[index + 2] = parts[index + 2].lstrip(" ")
    return "".join(parts)


def one_line(text: str) -> str:
    """Lines joined by `. `, as the paper writes T5's targets (T5 has no newline)."""
    lines = [line.strip() for line in text.split("\n")]
    return " ".join(line if re.search(r"[.!?]$", line) else f"{line}." for line in lines if line)
