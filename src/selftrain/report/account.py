"""What a run was made of and what it cost: settings, versions, machine, data, stages, lineage of weights and labels.

`run_facts`, `environment`, `data_facts`, `brought_samples`, `cost_results` and `lineage` are each a part of
results.json.
"""

from __future__ import annotations

import collections
import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from selftrain import __version__
from selftrain.config import RunConfig
from selftrain.cost import PARTS, stage_cost, total
from selftrain.hardware import num_cpus
from selftrain.identity import identity
from selftrain.judged import BROUGHT
from selftrain.recipe import load_config, recipe_names
from selftrain.report.expected import expected_stages
from selftrain.report.files import RunFiles
from selftrain.report.learning import by_question, health
from selftrain.stagefolder import read_json

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "reasoning-gym")
CPUINFO = Path("/proc/cpuinfo")


def run_facts(run: RunFiles) -> dict[str, Any]:
    """Name, method, model, seed, weights, configuration, and whether the run is finished."""
    config = run.config
    weights = next(reversed(run.events("weights")), {})
    trained = [run.figures(stage) for stage in run.manifests if stage.endswith(("/sft", "/dpo"))]
    return {
        "name": config.name,
        "folder": str(run.folder),
        "method": config.method,
        "baselines": list(config.baselines),
        "model": config.model,
        "weights": base_digest(run),
        "weights_source": weights.get("source"),
        "parameters": _parameters(run),
        "seed": config.seed,
        "finished": run.is_finished,
        "pending": [] if run.is_finished else pending_stages(run),
        "delivered": run.delivered and {name: run.delivered.get(name) for name in ("stage", "digest")},
        "precision": sorted({str(figures["precision"]) for figures in trained if figures.get("precision")}),
        "device": config.compute.device,
        "chat_template": has_chat_template(run.folder),
        "command": f"selftrain run {run.folder / 'config.yaml'} --out NEW_FOLDER",
        "recipe": recipe_of(config),
        "config": config.model_dump(mode="json"),
    }


def recipe_of(config: RunConfig) -> str | None:
    """The recipe of this package that a run of these settings is, run control aside; None where it is none."""
    recipe = load_config(config.name) if config.name in recipe_names() else None
    same = recipe and identity(recipe) == identity(config) and recipe.baselines == config.baselines
    return config.name if same else None


def base_digest(run: RunFiles) -> str | None:
    """SHA-256 of the base model's weights."""
    for stage, field in (("0-base/evaluate/", "model"), ("0-warmup/sft", "start")):
        for name, manifest in run.manifests.items():
            if name.startswith(stage) and field in manifest["inputs"]:
                return str(manifest["inputs"][field])
    return next((event.get("digest") for event in reversed(run.events("weights"))), None)


def _parameters(run: RunFiles) -> int | None:
    found = (run.figures(stage).get("parameters") for stage in run.manifests)
    return next((int(parameters) for parameters in found if parameters), None)


def has_chat_template(folder: Path) -> bool | None:
    """Whether the model's tokenizer has a chat template of its own; None while no model is there to look at."""
    for model in (folder / "model", folder / "base", *sorted(folder.glob("*/*/model"))):
        if (model / "tokenizer_config.json").is_file():
            settings = read_json(model / "tokenizer_config.json") or {}
            return (model / "chat_template.jinja").is_file() or bool(settings.get("chat_template"))
    return None


def pending_stages(run: RunFiles) -> list[str]:
    """The expected stages that are not finished."""
    return [stage for stage in expected_stages(run.config) if not run.is_done(stage)]


def environment(run: RunFiles) -> dict[str, Any]:
    """Versions and machine of the run's last start, as it wrote them down; this process's where it did not."""
    versions = {str(manifest.get("version", "")) for manifest in run.manifests.values()} - {""}
    told = [event["environment"] for event in run.events("environment") if isinstance(event.get("environment"), dict)]
    speeds = [float(event["flops"]) for event in run.events("speed") if isinstance(event.get("flops"), int | float)]
    return {
        "selftrain": sorted(versions or {__version__}),
        **(told[-1] if told else this_environment()),
        "matrix_gflops": [round(bound(speeds) / 1e9, 1) for bound in (min, max)] if speeds else [],
    }


def this_environment() -> dict[str, Any]:
    """Versions and machine of this process."""
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": num_cpus(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor as it calls itself; its architecture where the system does not tell."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def data_facts(run: RunFiles) -> dict[str, Any]:
    """The data stage's account of each set: rows, source, digests, what was left out and why."""
    report = read_json(run.folder / "data" / "report.json") if run.is_done("data") else None
    return dict(report.get("sets", {})) if isinstance(report, dict) else {}


def brought_samples(run: RunFiles) -> dict[str, Any] | None:
    """Samples made elsewhere: how they matched and were judged, and how much of each pool's yield is theirs."""
    spec = run.config.data.samples
    if spec is None or not run.is_done(BROUGHT):
        return None
    origins = {stage: rows for stage in run.manifests if (rows := _origins(run, stage))}
    theirs = {stage: sum(f"{BROUGHT}#" in origin for origin in rows) for stage, rows in origins.items()}
    yields = [{"stage": stage, "of_them": count, "all": len(origins[stage])} for stage, count in theirs.items()]
    fared = health(by_question(run.completions(BROUGHT)))
    return {**run.figures(BROUGHT), "use": spec.use, "yields": yields, "health": fared}


def _origins(run: RunFiles, stage: str) -> list[str]:
    """Where the pairs or pseudo-labels of a stage come from; both sides of a pair in one text."""
    if stage.endswith("/pair"):
        return [f"{pair.chosen_from} {pair.rejected_from}" for pair in run.pairs(stage)]
    if stage.endswith("/select"):
        return [row.origin for row in run.examples(stage) if row.origin != "gold"]
    return []


def cost_results(run: RunFiles) -> dict[str, Any]:
    """Seconds, tokens and FLOPs per stage, per part of the run, and in all."""
    headline = run.test_sets[0] if run.test_sets else None
    parameters = _parameters(run)
    costs = [
        stage_cost(
            stage, manifest["figures"] or {}, seconds=manifest["seconds"], parameters=parameters, headline=headline
        )
        for stage, manifest in run.manifests.items()
    ]
    parts = {part: total(cost for cost in costs if cost.part == part) for part in PARTS}
    return {
        "parameters": parameters,
        "stages": [dataclasses.asdict(cost) for cost in costs],
        "parts": {part: summed for part, summed in parts.items() if summed["stages"]},
        "total": total(costs),
    }


def lineage(run: RunFiles) -> dict[str, Any]:
    """Which weights were trained from which, and which weights wrote the pseudo-labels that were trained on."""
    base = base_digest(run)
    own = next((str(event["digest"]) for event in reversed(run.events("warmup-weights"))), None)
    given = [(name, digest) for name, digest in (("base", base), ("warmup_model", own)) if digest]
    made_by = {digest: name for name, digest in reversed(given)}
    made_by |= {str(run.figures(BROUGHT)["sha256"]): BROUGHT} if run.is_done(BROUGHT) else {}
    models = [{"stage": name, "weights": digest, "from": None, "from_weights": None} for name, digest in given]
    for stage in run.manifests:
        figures = run.figures(stage)
        if stage.endswith(("/sft", "/dpo")) and figures.get("weights"):
            start = str(figures.get("start_weights"))
            models.append({
                "stage": stage, "weights": figures["weights"], "from": made_by.get(start), "from_weights": start,
            })  # fmt: skip
            made_by.setdefault(figures["weights"], stage)
    return {"models": models, "pseudo_labels": _labels_by_model(run, made_by)}


def _labels_by_model(run: RunFiles, made_by: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for stage in run.manifests:
        if not stage.endswith("/select"):
            continue
        written = collections.Counter(row.model for row in run.examples(stage) if row.origin != "gold")
        rows += [
            {"stage": stage, "weights": digest, "written_by": made_by.get(digest), "labels": count}
            for digest, count in sorted(written.items())
        ]
    return rows
