"""What a run will take, before anything of it starts: `selftrain plan RECIPE`.

    plan = make_plan(load_config("quickstart"))
    plan.stages[3].likely.sampled_tokens, plan.seconds.likely
    print(plan_text(plan))

The sets are loaded for real and their tokens counted (counts.py). What the model will write is not known: three
guesses give a low, a likely and a high figure (guesses.py, estimate.py). FLOPs follow cost.py; hours are FLOPs over
this machine's matrix products times a share that runs were seen to reach (speed.py). Memory and disk: needs.py.
Nothing is written into the run folder, and no network is asked.
"""

from __future__ import annotations

from selftrain.plan.command import plan_command
from selftrain.plan.make import Plan, StagePlan, make_plan
from selftrain.plan.text import plan_text

__all__ = ["Plan", "StagePlan", "make_plan", "plan_command", "plan_text"]
