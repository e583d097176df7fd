"""The page: results as one self-contained HTML file, no network, no script; readable on a phone and in print.

    page(results, page_extras(run, results))

Everything that is not our own markup is escaped, model text and names from the configuration alike; a content
security policy in the page forbids it to load or run anything. jinja2 is imported when a page is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from selftrain.cost import PARTS
from selftrain.report import wording
from selftrain.report.figures import accuracy_figure, cost_figure, dpo_figure, loss_figure
from selftrain.report.files import RunFiles
from selftrain.report.samples import samples_to_read

Json = Mapping[str, Any]

METHODS = {
    "sft": "supervised fine-tuning (SFT) only",
    "st": "self-training (ST)",
    "dpo-st": "DPO-augmented self-training (DPO-ST)",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def page_extras(run: RunFiles, results: Json) -> dict[str, Any]:
    """What the page shows and results.json does not hold: training logs, and samples to read."""
    trained = [stage for stage in _trainings(run) if run.steps(stage)]
    test_set = results["test_sets"][0] if results["test_sets"] else None
    before, after = compared_stages(test_set) if test_set else (None, None)
    return {
        "curves": {stage: run.steps(stage) for stage in trained},
        "samples": samples_to_read(run, test_set["name"], before, after) if test_set else [],
    }


def _trainings(run: RunFiles) -> list[str]:
    """Training stages that are finished or under way, in the order of their names."""
    logs = run.folder.rglob("train-log.jsonl")
    return sorted(path.parent.relative_to(run.folder).as_posix() for path in logs)


def compared_stages(test_set: Json) -> tuple[str | None, str | None]:
    """Evaluation stages of the warm-up model and of the delivered (else the newest) one, where they are there."""
    there = [row for row in test_set["models"] if row["accuracy"]]
    before = next((row["stage"] for row in there if row["kind"] == "warm-up"), None)
    trained = [row for row in there if row["kind"] == "iteration"]
    after = next((row for row in trained if row["delivered"]), trained[-1] if trained else None)
    return before, after["stage"] if after else None


def page(results: Json, extras: Json) -> str:
    """The whole page."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.filters.update({
        name: getattr(wording, name)
        for name in ("percent", "interval", "share", "shown", "seconds_text", "count", "flops_text")
    })  # fmt: skip
    environment.filters["before_and_after"] = before_and_after
    template = (resources.files("selftrain.report") / "page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        **results, **extras, story=" ".join(story(results)), figures=_figures(results, extras), parts=PARTS,
        config_text=_yaml(results["run"]["config"]), pending_word=wording.PENDING,
    )  # fmt: skip


def before_and_after(dpo: Json) -> Iterator[dict[str, Any]]:
    """Lines of the DPO table: pass@k and maj@k, before and after, at every k that either side has."""
    for field, title in (("pass_at", "pass"), ("maj_at", "majority")):
        before, after = ({row["k"]: row for row in (dpo[side] or {}).get(field, [])} for side in ("before", "after"))
        for k in sorted(before | after):
            yield {"name": f"{title}@{k}", "before": before.get(k), "after": after.get(k)}


def _yaml(config: Json) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _visible(value: Any) -> Any:
    """Control characters of untrusted text, those that turn its direction too, as a visible sign; None as nothing."""
    if value is None:
        return ""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _figures(results: Json, extras: Json) -> dict[str, Any]:
    """SVG by name; `accuracy` and `dpo` by test set and stage."""
    from markupsafe import Markup

    accuracy = {}
    for number, test_set in enumerate(results["test_sets"], start=1):
        rows = [_dot(row) for row in test_set["models"] if row["accuracy"]]
        if rows:
            accuracy[test_set["name"]] = Markup(accuracy_figure(rows, f"Accuracy of each model on test set {number}"))
    curves, costs = extras["curves"], results["cost"]["stages"]
    losses = {stage: rows for stage, rows in curves.items() if stage.endswith("/sft")}
    return {
        "accuracy": accuracy,
        "cost": Markup(cost_figure(costs, "Seconds of each stage")) if costs else "",
        "loss": Markup(loss_figure(losses, "Training loss of each SFT")) if losses else "",
        "dpo": {
            stage: Markup(dpo_figure(rows, f"Training curves of {stage}"))
            for stage, rows in curves.items()
            if stage.endswith("/dpo")
        },
    }  # fmt: skip


def headline_figure(results: Json) -> str:
    """The first test set's accuracies as one SVG, to stand beside the results; empty where there are none yet."""
    for test_set in results["test_sets"][:1]:
        rows = [_dot(row) for row in test_set["models"] if row["accuracy"]]
        return accuracy_figure(rows, f"Accuracy on {test_set['name']}, {test_set['rows']} problems") if rows else ""
    return ""


def _dot(row: Json) -> dict[str, Any]:
    kind = "delivered" if row["delivered"] else row["kind"]
    return {**row["accuracy"], "kind": kind, "label": wording.shown(row)}


def story(results: Json) -> Iterator[str]:
    """What was done, in sentences."""
    run, data = results["run"], results["data"]
    labelled = f"{data['train']['rows']:,} labelled problems" if "train" in data else "the labelled problems"
    further = data.get("unlabelled", {}).get("rows", 0)
    also = f" and {further:,} further question{'' if further == 1 else 's'} with answers only" if further else ""
    yield f"{run['model']} was trained with {METHODS[run['method']]} on {labelled}{also}, seed {run['seed']}."
    if any(row["stage"] == "0-warmup/sft" for row in results["cost"]["stages"]):
        yield "The warm-up model was fine-tuned on the labelled problems."
    dpo = {row["iteration"]: row for row in results["dpo"]}
    for row in results["selection"]:
        if row["arm"] == run["method"]:
            yield from _turn(row, dpo.get(row["iteration"]))
    if run["delivered"]:
        yield f"Delivered: the model of {run['delivered']['stage']}."


def _turn(row: Json, dpo: Json | None) -> Iterator[str]:
    """One iteration."""
    first, second, labels = row["sampled_for_pairs"], row["sampled_for_labels"], row["labelling"]
    start = f"Iteration {row['iteration']}:"
    if first and dpo:
        yield (
            f"{start} the model answered {first['questions']:,} questions, {first['completions']:,} times in all "
            f"({wording.share(first['yield'])} right)"
            + (f"; right against wrong made {dpo['pairs']:,} pairs" if dpo["pairs"] is not None else "")
            + (f", on which DPO trained for {dpo['steps']} steps." if dpo["done"] else ".")
        )
        start = "Then"
    if second:
        kept = (
            f", of which {labels['kept']:,} were kept as pseudo-labels; the next model was fine-tuned on them and on "
            f"{labels['gold']:,} gold rationales"
            if labels
            else ""
        )
        yield f"{start} {second['completions']:,} answers were drawn for training ({second['right']:,} right){kept}."
