"""The page of a run: results as one self-contained HTML file; readable on a phone and in print.

    page(results, page_extras(run, results))

`pages` puts it together and says how it is kept safe; here are its figures, its sentences and what else it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.cost import PARTS
from selftrain.report import wording
from selftrain.report.browse import run_browser
from selftrain.report.figures import accuracy_figure, cost_figure, dpo_figure, iteration_figure, loss_figure
from selftrain.report.files import RunFiles
from selftrain.report.pages import render
from selftrain.report.progression import by_iteration
from selftrain.report.samples import samples_to_read

Json = Mapping[str, Any]

METHODS = {
    "sft": "supervised fine-tuning (SFT) only",
    "st": "self-training (ST)",
    "dpo-st": "DPO-augmented self-training (DPO-ST)",
}


def page_extras(run: RunFiles, results: Json) -> dict[str, Any]:
    """What the page shows and results.json does not hold: training logs, samples to read, and the sample browser."""
    trained = [stage for stage in _trainings(run) if run.steps(stage)]
    test_set = results["test_sets"][0] if results["test_sets"] else None
    before, after = compared_stages(test_set) if test_set else (None, None)
    return {
        "curves": {stage: run.steps(stage) for stage in trained},
        "samples": samples_to_read(run, test_set["name"], before, after) if test_set else [],
        "browser": run_browser(run, results["test_sets"]),
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


def page(results: Json, extras: Json, version: str = "") -> str:
    """The whole page; with a `version` it is a live one (`serve`)."""
    return render(
        "page.html.j2", version=version, made_by=", ".join(results["environment"]["selftrain"]), **results, **extras,
        story=" ".join(story(results)), figures=_figures(results, extras), parts=PARTS,
        config_text=_yaml(results["run"]["config"]),
    )  # fmt: skip


def _yaml(config: Json) -> str:
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _figures(results: Json, extras: Json) -> dict[str, Any]:
    """SVG by name; `accuracy` and `iterations` by test set, `dpo` by stage."""
    from markupsafe import Markup

    accuracy, iterations = {}, {}
    for number, test_set in enumerate(results["test_sets"], start=1):
        rows = [_dot(row) for row in test_set["models"] if row["accuracy"]]
        if rows:
            accuracy[test_set["name"]] = Markup(accuracy_figure(rows, f"Accuracy of each model on test set {number}"))
        if lines := by_iteration(test_set["models"]):
            title = f"Accuracy by iteration on test set {number}"
            iterations[test_set["name"]] = Markup(iteration_figure(lines, title))
    curves, costs = extras["curves"], results["cost"]["stages"]
    losses = {stage: rows for stage, rows in curves.items() if stage.endswith("/sft")}
    return {
        "accuracy": accuracy,
        "iterations": iterations,
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
