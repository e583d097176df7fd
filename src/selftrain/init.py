"""`selftrain init`: from a file of problems to a run's YAML, with what was found and why each value is as it is.

    started = init("my.jsonl", Path("mine.yaml"))
    print(started.text)            # columns, answers, sets, three rows as the model will see them, the next commands

The sets are drawn by `assemble`, as the run will draw them, and the YAML is read back before it is written, so
`selftrain run mine.yaml` takes it as it is. No weights are read; the tokenizer is, where it is on this machine.
Leaves out: sets of several files (write `data.test` yourself), and which values are best (README, docs/log.md).
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from selftrain import durable
from selftrain.config import DataConfig, DataSpec, RunConfig
from selftrain.data import load
from selftrain.data.assemble import Assembled, assemble, shuffled
from selftrain.data.base import LoadedSet
from selftrain.data.files import HUB, answer_text, column_names, find_columns, rows_of
from selftrain.data.gold import unreached_warnings
from selftrain.data.reading import open_path
from selftrain.errors import ConfigError, DataError, listed
from selftrain.evaluate import mapped_fields, parse_spec, set_name
from selftrain.inityaml import Facts, quoted, recipe_yaml
from selftrain.lengths import Reader, open_reader
from selftrain.proposal import Proposal, propose
from selftrain.recipe import YAML_SUFFIXES, config_from
from selftrain.report.text import clean
from selftrain.similarity import normalise_question
from selftrain.verify import open_verifier
from selftrain.weights import SMOLLM2, check_name

MIN_ROWS = 8
MIN_LABELLED = 4
TEST_SHARE = 0.2
MAX_TEST = 300
SHUFFLE = 1
ROWS_SHOWN = 3
NAME_CHARS = 60


@dataclasses.dataclass(frozen=True)
class Started:
    """What was written, and the account of it for the terminal."""

    path: Path
    config: RunConfig
    text: str


def init(
    data: str,
    out: Path = Path("mine.yaml"),
    *,
    model: str = SMOLLM2,
    rows: int | None = None,
    fields: Sequence[str] = (),
    verify: str | None = None,
    force: bool = False,
) -> Started:
    """Look at a set of problems, and write a run's YAML.

    Args:
        data: a file of rows, a source, SOURCE=PATH, or hub:NAME[:SPLIT[:SUBSET]].
        out: the YAML file to make, whole or not at all.
        model: the model to train; it need not be on this machine.
        rows: use at most so many of the rows.
        fields: columns, each as OURS=THEIRS.
        verify: what judges answers; None: proposed by how they are written.
        force: write over a file that is there.

    Raises:
        ConfigError: a file that may not be written, or a verifier that cannot be had.
        DataError: a set that cannot be read or is too small, or answers that no one verifier accepts.
        ModelError: a name that no model can have.
    """
    if rows is not None and rows < MIN_ROWS:
        raise DataError(f"--rows: expected at least {MIN_ROWS}, got {rows}.")
    _check_texts(data, model, *fields)
    spec = parse_spec(data).model_copy(update={"rationales": True, "fields": mapped_fields(fields), "name": None})
    if spec.path is not None:
        open_path(spec.path, "a file of rows with questions and answers")
    check_name(model)
    _check_out(out, force)
    spec, proposal = _proposed(spec, verify)
    _check_verifier(proposal, data, asked=verify is not None)
    loaded = load(spec)
    name = set_name(spec.path or spec.label)[:NAME_CHARS].rstrip("-._")
    sets = _draw(spec, loaded, f"{name}-held-out", rows)
    reader = open_reader(model)
    found = assemble(sets, 0)
    run_name = set_name(out.name)[:NAME_CHARS].rstrip("-._")
    facts = Facts(run_name, data, model, sets, found, proposal.reason, reader.lengths(found), reader.encoder_decoder)
    text = recipe_yaml(facts)
    config = config_from(yaml.safe_load(text))
    durable.write(out, text.encode("ascii"))
    account = _account(facts, loaded, reader, config, [*_shown_rows(found, reader), *_next(data, out, spec, fields)])
    return Started(out, config, account)


def _check_out(out: Path, force: bool) -> None:
    if out.suffix not in YAML_SUFFIXES:
        raise ConfigError(f"--out: expected a file that ends in .yaml, got {str(out)!r}.", "Such as --out mine.yaml.")
    if out.is_dir() or (out.exists() and not force):
        hint = "Name another file with --out." + ("" if out.is_dir() else " --force writes over it.")
        raise ConfigError(f"{out} is there already.", hint)
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}.", "Make it first, or name another with --out.")


def _check_texts(*texts: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{text!r}: expected a name in UTF-8, got other bytes.", "Rename it.") from error


def _proposed(spec: DataSpec, verify: str | None) -> tuple[DataSpec, Proposal]:
    """The spec with its columns named and its verifier, and why that one."""
    columns: dict[str, str] = {}
    if spec.source.partition(":")[0] in ("file", HUB):
        rows, where = rows_of(spec)
        columns = find_columns(spec.fields, column_names(rows), where)
        answers = [(row.where, text) for row in rows if (text := answer_text(row, columns))]
    else:
        answers = [(problem.id, problem.answer) for problem in load(spec).problems if problem.answer]
    if verify is not None:
        proposal = Proposal(verify, False, {}, "asked for")
    elif "worked" in columns:
        proposal = Proposal("numeric", False, {}, f"the last number of {quoted(columns['worked'])} is the answer")
    elif answers:
        proposal = propose(answers)
    else:
        proposal = Proposal("numeric", False, {}, "no answers")  # loading the set says at which row
    if proposal.last_number:
        ours = "answer" if "answer" in columns else "rationale"
        column = columns.pop(ours)
        columns = {**columns, "worked": column}
    return spec.model_copy(update={"fields": columns, "verify": proposal.verify}), proposal


def _check_verifier(proposal: Proposal, data: str, *, asked: bool) -> None:
    """Refuse a verifier that cannot be had, with what speaks for it where nobody asked for it."""
    try:
        open_verifier(proposal.verify)
    except ConfigError as error:
        if asked:
            raise
        raise ConfigError(
            f"{data}: {proposal.reason}. {error.message}",
            f"Where all are numbers, write these alone (24, not 24 m/s; 1234.50, not 1.234,50). Else: {error.hint}",
        ) from error


def _draw(spec: DataSpec, loaded: LoadedSet, test_name: str, rows: int | None) -> DataConfig:
    """Test rows first, then what is labelled, then what has answers only, all from one order of the rows.

    Raises:
        DataError: too few rows.
    """
    usable = len({normalise_question(problem.question) for problem in loaded.problems})
    if usable < MIN_ROWS:
        skipped = "".join(f"; {count} skipped: {reason}" for reason, count in loaded.skipped.items())
        raise DataError(
            f"{spec.path or spec.source}: expected at least {MIN_ROWS} usable rows with questions of their own, "
            f"got {usable}{skipped}.",
            "A few hundred problems are a start.",
        )
    wanted = min(usable, rows or usable)
    num_test = max(2, min(MAX_TEST, round(TEST_SHARE * wanted)))
    ordered = shuffled(loaded.problems, SHUFFLE)
    tested = {normalise_question(problem.question) for problem in ordered[:num_test]}
    left = {normalise_question(problem.question) for problem in ordered[num_test:]} - tested
    explained = {normalise_question(problem.question) for problem in ordered[num_test:] if problem.rationale} - tested
    _check_labelled(spec, len(explained), len(left))
    num_train = min(len(explained), wanted - num_test)
    num_more = min(len(left) - num_train, wanted - num_test - num_train)
    rest = spec.model_copy(update={"shuffle": SHUFFLE, "skip": num_test})
    return DataConfig(
        train=rest.model_copy(update={"take": num_train}),
        unlabelled=rest.model_copy(update={"rationales": False, "take": num_more}) if num_more > 0 else None,
        test=[spec.model_copy(update={"shuffle": SHUFFLE, "name": test_name, "take": num_test})],
    )


def _check_labelled(spec: DataSpec, num_labelled: int, num_left: int) -> None:
    if num_labelled < MIN_LABELLED:
        columns = ", ".join(f"{ours} from {quoted(theirs)}" for ours, theirs in spec.fields.items())
        raise DataError(
            f"{spec.path or spec.source}: expected at least {MIN_LABELLED} rows with a worked rationale beside the "
            f"test's, got {num_labelled} of {num_left}" + (f" ({columns})." if columns else "."),
            "The warm-up imitates worked answers: write some (64 are a start), or name their column: "
            "--field rationale=COLUMN.",
        )


def _account(facts: Facts, loaded: LoadedSet, reader: Reader, config: RunConfig, ending: Sequence[str]) -> str:
    """What was found and decided, for the terminal."""
    sets, found = facts.sets, facts.found
    columns = ", ".join(f"{ours} from {quoted(theirs)}" for ours, theirs in sets.train.fields.items())
    num_test = len(found.tests[sets.test[0].label])
    lines = [
        f"{facts.data}: {len(loaded.problems)} usable rows",
        *(f"skipped: {count} rows, {reason}" for reason, count in loaded.skipped.items()),
        *([f"columns: {columns}"] if columns else []),
        f"verify: {sets.train.verify} ({facts.reason})",
        f"sets: {len(found.train)} labelled, {len(found.unlabelled)} with answers only, {num_test} for the test",
        *_equal_questions(loaded, found),
        *_near_copies(found),
        *unreached_warnings(found.train),
        reader.remark,
        f"limits: prompts {config.prompt.max_prompt_tokens} tokens, targets {config.training.max_target_tokens} "
        f"({facts.lengths.reason})",
        *_over_limit(facts.lengths.over),
        *ending,
    ]
    return "\n".join(clean(line).encode("utf-8", "replace").decode() for line in lines)


def _equal_questions(loaded: LoadedSet, found: Assembled) -> list[str]:
    used = [*found.train, *found.unlabelled, *(problem for test in found.tests.values() for problem in test)]
    asked = {normalise_question(problem.question) for problem in used}
    more = sum(normalise_question(problem.question) in asked for problem in loaded.problems) - len(used)
    return [f"left out: {more} rows with the question of another row"] if more else []


def _over_limit(rows: Sequence[str]) -> list[str]:
    return [f"{len(rows)} of these rows are longer, and are left out: {listed(rows, ROWS_SHOWN)}"] if rows else []


def _near_copies(found: Assembled) -> list[str]:
    near = sum(account["near_copies"] for role, account in found.report["sets"].items() if not role.startswith("test/"))
    return [f"{near} rows to learn from are near-copies of test rows (data.drop_near_duplicates)"] if near else []


def _shown_rows(found: Assembled, reader: Reader) -> list[str]:
    lines = ["", f"{min(ROWS_SHOWN, len(found.train))} rows as the model will see them:"]
    for problem in found.train[:ROWS_SHOWN]:
        row = reader.row(problem)
        tokens = f" ({row.prompt_tokens} + {row.target_tokens} tokens)" if row.prompt_tokens else ""
        lines.append(f"--- {problem.id}{tokens}")
        lines += [f"  prompt | {line}" for line in row.prompt.split("\n")]
        lines += [f"  target | {line}" for line in row.target.split("\n")]
    return lines


def _next(data: str, out: Path, spec: DataSpec, fields: Sequence[str]) -> list[str]:
    given = list(fields) + ([f"worked={spec.fields['worked']}"] if "worked" in spec.fields else [])
    check = ["selftrain", "data", "check", data, "--verify", spec.verify]
    for field in dict.fromkeys(given):
        check += ["--field", field]
    return ["", f"{out} is written. Next:", shlex.join(check), shlex.join(["selftrain", "run", str(out)])]
