"""The `selftrain` command: parses, calls, prints. Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 `data check` found gold answers that fail or `push` was told no, 2 something that the user can put
right (one message, no traceback), 130 interrupted (143: by SIGTERM).
Heavy imports happen inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selftrain import stopping
from selftrain.errors import UserError
from selftrain.offline import go_offline
from selftrain.report.text import clean_lines
from selftrain.studycommand import study
from selftrain.subcommands import FIELD_HELP, VERIFY_HELP, Guided, compare, data_app, doctor, push, recipes_app, report
from selftrain.terminal import say

INTERRUPTED = 130  # exit code of a command stopped by Ctrl-C

app = typer.Typer(
    cls=Guided,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a small language model reason better by training it on its own checked answers.\n\n\b\n"
    "Start here:  selftrain run quickstart   (a real 135 M model; fetches 93 to 270 MB once)\n"
    'Then:        selftrain ask runs/quickstart/model "6 boxes of 7 pens. How many pens?"\n'
    "Your own:    selftrain init --data my.jsonl   (writes a run's YAML for your problems)",
)
app.add_typer(recipes_app, name="recipes")
app.add_typer(data_app, name="data")


@app.callback()
def options(
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network; what is not on this machine is an error.")
    ] = False,
) -> None:
    """What stands before the command's name."""
    if offline:
        go_offline()


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `selftrain recipes`) or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change: section.field=value, e.g. training.dpo.beta=0.1")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME. Run again to go on.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Stop when this stage is done: 1-iteration/pair, or 0-warmup for all of it.")
    ] = None,
) -> None:
    """Train a model on its own checked answers, or go on with a run.

    Examples:

      selftrain run quickstart

      selftrain run quickstart method=st --out runs/st

      selftrain run quickstart 'baselines=[st, sft-matched]'   (adds arms to the same run)
    """
    from selftrain.api import run as run_recipe
    from selftrain.report.text import results_text
    from selftrain.terminal import make_progress

    results = run_recipe(recipe, overrides or [], out=out, until=until, progress=make_progress())
    if results:  # under a launcher the main process alone has them
        print(results_text(results))


@app.command()
def init(
    data: Annotated[
        str,
        typer.Option(
            help="A file of rows (JSONL, JSON, CSV, Parquet), a source, SOURCE=PATH, or hub:NAME:SPLIT:SUBSET."
        ),
    ],
    model: Annotated[str, typer.Option(help="A hub name, a local folder, or a built-in.")] = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="The YAML file to make, whole or not at all.")] = Path("mine.yaml"),
    rows: Annotated[int | None, typer.Option(help="Use at most so many of the rows.")] = None,
    field: Annotated[list[str] | None, typer.Option(help=FIELD_HELP)] = None,
    verify: Annotated[str | None, typer.Option(help=f"{VERIFY_HELP} Default: by how answers are written.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at your problems and write a run's YAML, with its reasons.

    Examples:

      selftrain init --data my.jsonl

      selftrain init --data my.csv --field question=text --field answer=gold --out mine.yaml
    """
    from selftrain.init import init as init_recipe

    print(init_recipe(data, out, model=model, rows=rows, fields=field or (), verify=verify, force=force).text)


@app.command()
def plan(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe or YAML file; not needed with the --out of a run.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change: section.field=value.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME. What is done there counts.")] = None,
    measure: Annotated[bool, typer.Option(help="Let matrix products run for half a second: gives the hours.")] = True,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the weights (training.sharded).")] = 1,
) -> None:
    """Say what a run will take before it starts. Of a finished run, say how far off that was.

    Examples:

      selftrain plan quickstart

      selftrain plan --out runs/quickstart   (planned, was, and the ratio)
    """
    from selftrain.plan import plan_command

    print(plan_command(recipe, overrides or [], out=out, measure=measure, num_processes=processes))


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help="A delivered model's folder, a hub name, or smollm2-135m.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    calculator: Annotated[bool, typer.Option(help="Compute <<...>> annotations while decoding.")] = True,
) -> None:
    """Answer one question and show what the calculator computed.

    Example:

      selftrain ask runs/quickstart/model "6 boxes of 7 pens. How many pens?"
    """
    from selftrain.use import check_question, computed_calls, open_model

    check_question(question)
    tutor = open_model(model, say=say)
    completion = tutor.ask(question, calculator=calculator)
    print(clean_lines(completion.text) if completion.text.strip() else "(only white space)")
    if completion.stop == "length":
        say(f"cut off after {len(completion.token_ids)} tokens, before the model came to an end")
    computed = computed_calls(completion, tutor.codec.style)
    say(f"calculator: {'; '.join(computed) if computed else 'no call'}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A delivered model's folder, a hub name, or smollm2-135m.")],
    data: Annotated[list[str], typer.Option(help="A source (asdiv, svamp, ...) with SOURCE=PATH, or a JSONL file.")],
    take: Annotated[int | None, typer.Option(help="Only this many problems of each set.")] = None,
    verify: Annotated[str, typer.Option(help=VERIFY_HELP)] = "numeric",
    field: Annotated[list[str] | None, typer.Option(help=FIELD_HELP)] = None,
    calculator: Annotated[bool, typer.Option(help="Compute <<...>> annotations while decoding.")] = True,
    out: Annotated[Path | None, typer.Option(help="A new file for the judged completions, as JSONL.")] = None,
) -> None:
    """Accuracy of a model on sets of problems. Strict and flexible extraction side by side.

    Example:

      selftrain evaluate runs/quickstart/model --data my-test.jsonl
    """
    from selftrain.evaluate import evaluate_sets
    from selftrain.terminal import make_progress

    table = evaluate_sets(
        model, data, take=take, verify=verify, fields=field or (), calculator=calculator, out=out,
        progress=make_progress(),
    )  # fmt: skip
    print(table)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A delivered model's folder, a hub name, or smollm2-135m.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="A source (asdiv, svamp, ...), SOURCE=PATH, or a file of questions (JSONL, JSON, CSV), with answers "
            "or without. Give it again for more sets."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to make: whole or not there. Run again to go on.")],
    samples: Annotated[int, typer.Option("--samples", "-k", help="Completions a problem.")] = 8,
    temperature: Annotated[
        float, typer.Option(help="Softmax temperature: higher gives more different completions; 0 is greedy (-k 1).")
    ] = 0.7,
    top_k: Annotated[int, typer.Option(help="Draw from the K best tokens only; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the best tokens that hold this mass; 1 is off.")] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a completion; default: as the model was trained, else 300.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other completions; the same seed the same.")] = 0,
    slots: Annotated[
        int,
        typer.Option(help="Rows decoded at once: more is faster while memory lasts, and a shard is 8 times as many."),
    ] = 128,
    take: Annotated[int | None, typer.Option(help="Only this many problems of each set.")] = None,
    verify: Annotated[str, typer.Option(help=VERIFY_HELP)] = "numeric",
    field: Annotated[list[str] | None, typer.Option(help=FIELD_HELP)] = None,
    calculator: Annotated[bool, typer.Option(help="Compute <<...>> annotations while decoding.")] = True,
    backend: Annotated[
        str, typer.Option(help="What draws: engine (ours), or vllm (its extra; large models on GPUs).")
    ] = "engine",
) -> None:
    """Sample K completions of every problem into a JSONL file. Problems with answers get verdicts.

    Examples:

      selftrain sample runs/quickstart/model --data svamp=SVAMP.json -k 8 --out samples.jsonl

      selftrain sample smollm2-135m --data questions.jsonl -k 1 --temperature 0 --out greedy.jsonl

    Stop it whenever you like: the same command goes on where it stopped, and gives the same file.
    """
    from selftrain.samplefile import sample as sample_into
    from selftrain.terminal import make_progress

    done = sample_into(
        model, data, out, samples=samples, temperature=temperature, top_k=top_k, top_p=top_p,
        max_new_tokens=max_new_tokens, seed=seed, slots=slots, take=take, verify=verify, fields=field or (),
        calculator=calculator, backend=backend, progress=make_progress(),
    )  # fmt: skip
    print(done.table())


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="pairs (right against wrong) or sft (gold and pseudo-labels).")],
    run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    form: Annotated[
        str, typer.Option("--format", help="trl: columns of texts; messages: lists of {role, content}.")
    ] = "trl",
    iteration: Annotated[int | None, typer.Option(help="Which one; default: the newest. 0: the warm-up's.")] = None,
    out: Annotated[Path | None, typer.Option(help="The JSONL file to make, whole or not at all; else stdout.")] = None,
) -> None:
    """Write a run's pairs or training examples for other trainers.

    TRL, axolotl and LLaMA-Factory read them (docs/guide/export.md).

    Examples:

      selftrain export pairs runs/quickstart --format trl --out pairs.jsonl

      selftrain export sft runs/quickstart --format messages --out sft.jsonl
    """
    import json

    from selftrain.export import export as export_run
    from selftrain.records import to_dict

    done = export_run(run_folder, what, form, iteration=iteration, out=out, say=say)
    if out is None:
        for row in done.rows:
            print(json.dumps(to_dict(row), separators=(",", ":")))
    say(f"{len(done.rows)} rows of {done.stage}" + (f": {out}" if out is not None else ""))
    if done.read_otherwise:
        say(
            f"{done.read_otherwise} of them, tokenised from their text in one piece, give other tokens than the run "
            "trained on (docs/guide/export.md says why)."
        )


app.command()(study)
app.command()(push)


app.command()(report)
app.command()(compare)
app.command()(doctor)


def main() -> None:
    """Entry point: turns a `UserError` into one message and exit code 2; a bug keeps its traceback."""
    try:
        with stopping.handled():
            app()
    except UserError as error:
        say(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code != INTERRUPTED:
            raise
        say("Interrupted. Run the same command again to go on.")  # typer has caught the KeyboardInterrupt
        raise SystemExit(stopping.exit_code()) from None
