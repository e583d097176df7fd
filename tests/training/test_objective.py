"""Log-probabilities in chunks of the head are those of the head at once, and so are the gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from selftrain.forwards import Tree
from selftrain.training import objective
from selftrain.training.objective import target_log_probs

TREES = [Tree((5, 6, 7), [(20, 21, 1), (22, 1)]), Tree((8, 9), [(23, 24, 25, 1)])]


def test_chunks_of_the_head_change_nothing(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = family.model()
    found = []
    for limit in (2**25, 4 * module.config.vocab_size, 1):
        monkeypatch.setattr(objective, "HEAD_LOGITS", limit)
        module.zero_grad()
        values, rows = target_log_probs(module, TREES, 1, family.layout)
        values.square().sum().backward()
        found.append((values.detach(), rows, {name: p.grad.clone() for name, p in module.named_parameters()}))
    for values, rows, gradients in found[1:]:
        torch.testing.assert_close(values, found[0][0])
        assert torch.equal(rows, found[0][1])
        for name, gradient in gradients.items():
            assert float(gradient.abs().sum()) > 0, name
            torch.testing.assert_close(gradient, found[0][2][name], rtol=1e-3, atol=1e-4, msg=name)


def test_no_more_logits_than_the_limit_exist_at_once(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = family.model()
    seen = []
    whole = objective.head_logits

    def watched(module: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return whole(module, hidden)

    monkeypatch.setattr(objective, "head_logits", watched)
    monkeypatch.setattr(objective, "HEAD_LOGITS", 4 * module.config.vocab_size)
    target_log_probs(module, TREES, 1, family.layout)
    assert seen == [4, 4, 1]
