"""`small-t5`: a vocabulary of words and digits in which the rationales of its templates can be written."""

from __future__ import annotations

import pytest

from selftrain.data.reasoning_gym import load_reasoning_gym
from selftrain.models import LanguageModel, load_model
from selftrain.prompts import Codec
from selftrain.recipe import load_config
from selftrain.toy import make_toy


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    pytest.importorskip("reasoning_gym", reason="needs the extra gym")
    folder = tmp_path_factory.mktemp("small") / "t5"
    make_toy("small-t5", folder)
    return load_model(folder, digest="small")


def test_it_is_small_and_writes_numbers_digit_by_digit(small: LanguageModel) -> None:
    assert 1e6 < small.num_parameters <= 10e6
    vocabulary = small.tokenizer.get_vocab()
    assert not any("<" in token for token in vocabulary if token not in ("<pad>", "<unk>", "</s>"))
    assert not any(sum(map(str.isdigit, token)) > 1 for token in vocabulary)


def test_rows_of_its_recipe_can_be_written(small: LanguageModel) -> None:
    config = load_config("templates-t5")
    spec = config.data.train.model_copy(update={"params": {"seed": 70_000_000, "size": 400}})
    problems = [p for p in load_reasoning_gym(spec, True).problems if p.group in (spec.groups or [])]
    codec = Codec.build(small.tokenizer, config.prompt, True)
    unknown, tokens = small.tokenizer.unk_token_id, 0
    assert len(problems) > 10
    for problem in problems:
        ids = codec.target(problem.rationale or "")
        assert len(ids) <= config.sampling.max_new_tokens
        tokens += sum(token == unknown for token in ids)
        if unknown not in ids:
            assert codec.target(codec.text(ids)) == ids, "what is read back is what was written"
    assert tokens / len(problems) < 0.5, "rare names may be unknown, no more"
