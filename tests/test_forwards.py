"""Training forwards in both layouts, against transformers' own forward of each row alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.errors import ModelError
from selftrain.forwards import Layout, Tree, choose_layout, target_hidden, why_not_trees
from selftrain.models import LanguageModel, head_logits, is_encoder_decoder, load_model
from selftrain.toy import make_toy
from selftrain.training.objective import target_log_probs

TREES = [
    Tree([5, 6, 7], [[20, 21, 0], [22, 0], [23], [20, 21, 24, 25, 0]]),
    Tree([8, 9, 10, 11, 12], [[22, 0]]),
    Tree([13], [[0], [26, 27, 28, 0]]),
]


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder)
    return load_model(folder, digest="toy")


@pytest.mark.parametrize("layout", ["rows", "trees"])
def test_hidden_states_at_targets_equal_each_row_alone(toy: LanguageModel, layout: Layout) -> None:
    hidden, labels, rows = target_hidden(toy.module, TREES, pad_id=0, layout=layout)
    logits = head_logits(toy.module, hidden)
    pairs = [(list(prompt), list(target)) for prompt, targets in TREES for target in targets]
    assert labels.tolist() == [token for _, target in pairs for token in target]
    assert rows.tolist() == [row for row, (_, target) in enumerate(pairs) for _ in target]
    for row, (prompt, target) in enumerate(pairs):
        if is_encoder_decoder(toy.module):
            out = toy.module(input_ids=torch.tensor([prompt]), labels=torch.tensor([target])).logits[0]
        else:
            out = toy.module(input_ids=torch.tensor([prompt + target])).logits[0][len(prompt) - 1 : -1]
        torch.testing.assert_close(logits[rows == row], out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["rows", "trees"])
def test_a_target_that_holds_the_pad_id_counts(toy: LanguageModel, layout: Layout) -> None:
    """Pad and end token are one in many models; masks come from lengths."""
    hidden, labels, _ = target_hidden(toy.module, TREES, pad_id=toy.eos_id, layout=layout)
    assert len(labels) == sum(len(target) for tree in TREES for target in tree.targets)
    other, _, _ = target_hidden(toy.module, TREES, pad_id=30, layout=layout)
    torch.testing.assert_close(hidden, other)


def test_completions_of_a_tree_do_not_see_each_other(toy: LanguageModel) -> None:
    """Changing any other completion, or any other tree, leaves a completion's hidden states as they are."""
    changed = [
        Tree(TREES[0].prompt, [[30, 31, 0], [22, 0], [32], [33, 34, 35, 36, 0]]),
        Tree([9, 9, 9, 9, 9], [[29, 0]]),
        Tree([14], [[0], [29, 29, 29, 0]]),
    ]
    before, _, rows = target_hidden(toy.module, TREES, 0, "trees")
    after, _, _ = target_hidden(toy.module, changed, 0, "trees")
    torch.testing.assert_close(after[rows == 1], before[rows == 1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[rows == 3], before[rows == 3], atol=1e-2)


def test_the_layouts_give_the_same_gradients(toy: LanguageModel) -> None:
    found: list[dict[str, torch.Tensor]] = []
    layouts: list[Layout] = ["rows", "trees"]
    for layout in layouts:
        toy.module.zero_grad()
        hidden, labels, _ = target_hidden(toy.module, TREES, 0, layout)
        torch.nn.functional.cross_entropy(head_logits(toy.module, hidden), labels).backward()
        found.append({name: p.grad.clone() for name, p in toy.module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(float(gradient.abs().sum()) > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_auto_takes_trees_and_restores_the_models_own_attention(toy: LanguageModel) -> None:
    before = toy.module.config._attn_implementation
    assert choose_layout(toy.module, "auto") == ("trees", "")
    assert choose_layout(toy.module, "rows") == ("rows", "")
    assert toy.module.config._attn_implementation == before


def test_auto_compares_the_rows_that_it_is_given(toy: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    forward = target_hidden

    def noting(module: Any, trees: Any, *rest: Any) -> Any:
        seen.append(trees)
        return forward(module, trees, *rest)

    monkeypatch.setattr("selftrain.forwards.target_hidden", noting)
    assert choose_layout(toy.module, "auto", TREES) == ("trees", "")
    assert seen == [TREES, TREES]


def test_frozen_bf16_weights_of_a_training_of_adapters_take_trees_too() -> None:
    """Both layouts round; the bound is that of bf16, and shared prompts that are wrong are far beyond it."""
    torch.manual_seed(0)
    module = _plain().bfloat16()
    assert choose_layout(module, "auto", TREES) == ("trees", "")


def _plain() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **sizes))


def _windowed() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MistralForCausalLM(MistralConfig(vocab_size=64, num_key_value_heads=2, sliding_window=3, **sizes))


def _capped() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    kinds = ["full_attention"] * 2
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=64, num_key_value_heads=2, head_dim=8, layer_types=kinds, **sizes))


def _absolute() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def _mixed() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    more: dict[str, Any] = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16, "layer_types": kinds}
    return Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=64, num_key_value_heads=2, pad_token_id=0, **sizes, **more))


def _chunked() -> Any:
    """Llama 4's chunks are made by its mask alone: its attention is never told of them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    module = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                          num_attention_heads=4))  # fmt: skip
    module.config.attention_chunk_size = 64
    return module


@pytest.mark.parametrize(
    ("build", "says"),
    [(_windowed, "sliding"), (_mixed, "sliding"), (_chunked, "chunked"), (_capped, "softcap")],
)
def test_attention_of_another_kind_falls_back_to_rows_with_a_reason(build: Callable[[], Any], says: str) -> None:
    module = build().train()
    layout, reason = choose_layout(module, "auto")
    assert layout == "rows" and says in reason
    assert module.training
    with pytest.raises(ModelError, match="trees cannot be used"):
        choose_layout(module, "trees")


def test_log_probabilities_beyond_a_window_are_the_models_own() -> None:
    """Gemma 3: rows of 25 to 41 tokens, window 16, in the layout that `auto` chooses."""
    torch.manual_seed(0)
    module = _mixed().eval()
    for parameter in module.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4.0)  # so that attention looks somewhere
    ids = torch.randint(1, 64, (80,)).tolist()
    trees = [Tree(ids[:24], [ids[24:41], ids[41:42]]), Tree(ids[42:45], [ids[45:80]])]
    values, rows = target_log_probs(module, trees, 0, choose_layout(module, "auto")[0])
    pairs = [(prompt, target) for prompt, targets in trees for target in targets]
    for row, (prompt, target) in enumerate(pairs):
        logits = module(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None])[:, 0]
        torch.testing.assert_close(values[rows == row], own, rtol=1e-5, atol=1e-5)
    module.config.sliding_window = 64
    other, _ = target_log_probs(module, trees, 0, "rows")
    assert not torch.allclose(values[rows == 0], other[rows == 0], atol=1e-3), "the window does not matter here"


def test_other_models_take_trees_only_where_the_numbers_agree() -> None:
    """GPT-2 learns absolute positions and takes position ids: whatever `auto` decides, the numbers are right."""
    torch.manual_seed(0)
    module = _absolute().eval()
    layout, reason = choose_layout(module, "auto")
    assert (layout == "trees") == (reason == "")
    plain, _, _ = target_hidden(module, TREES, 0, "rows")
    chosen, _, _ = target_hidden(module, TREES, 0, layout)
    torch.testing.assert_close(chosen, plain, rtol=1e-4, atol=1e-4)


def test_a_wrong_position_would_be_noticed(toy: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is no formality: positions that do not restart after the prompt are refused."""
    if is_encoder_decoder(toy.module):
        pytest.skip("positions are the decoder's own")
    import selftrain.forwards as forwards

    flatten = forwards._flatten

    def running(trees: Any) -> Any:
        ids, _, predictors, branches = flatten(trees)
        return ids, list(range(len(ids))), predictors, branches

    monkeypatch.setattr(forwards, "_flatten", running)
    assert "off by" in why_not_trees(toy.module)
    assert "off by" in why_not_trees(_plain().bfloat16(), TREES)


def test_a_saved_model_does_not_name_our_attention(toy: LanguageModel, tmp_path: Path) -> None:
    target_hidden(toy.module, TREES, 0, "trees")
    toy.module.save_pretrained(tmp_path)
    assert "selftrain" not in (tmp_path / "config.json").read_text()
