"""Compiled blocks and head against eager ones: the same log-probabilities and gradients."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from selftrain.forwards import Tree, attention_of
from selftrain.models import LanguageModel, blocks_of, load_model
from selftrain.toy import make_toy
from selftrain.training import compiling
from selftrain.training.compiling import compile_blocks
from selftrain.training.objective import target_log_probs

TREES = [Tree([5, 6, 7], [[20, 21, 0], [22, 0], [20, 21, 24, 25, 0]]), Tree([8, 9, 10, 11], [[22, 23, 0]])]


def log_probs_and_gradients(model: LanguageModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    with attention_of(model.module, "trees"):
        found, _ = target_log_probs(model.module, TREES, 0, "trees")
        gradients = torch.autograd.grad(found.sum(), list(model.module.parameters()), allow_unused=True)
    return found.detach(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.filterwarnings("ignore")  # torch's compiler has its own
def test_compiled_blocks_train_alike(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":  # traced and differentiated as on a GPU, but C++ code for it would take a minute to make
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    compiling._compiled_log_probs.cache_clear()
    make_toy("random-llama", tmp_path)
    model = load_model(tmp_path, digest="toy", device=device)
    names = [name for name, _ in model.module.named_parameters()]
    expected, expected_gradients = log_probs_and_gradients(model)
    compile_blocks(model.module)
    assert len(blocks_of(model.module)) == 2 and all(block._compiled_call_impl for block in blocks_of(model.module))
    found, gradients = log_probs_and_gradients(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert [name for name, _ in model.module.named_parameters()] == names
