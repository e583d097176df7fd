"""Arms x seeds x test sets, from one YAML file: `selftrain study NAME`.

    study = load_study("main")
    runs = runs_of(study, Path("runs/study-main"))        # one run folder an arm and seed: STUDY/ARM/seed-N
    carry_out(runs, progress)                             # one after the other; finished stages are shared
    results = study_results(study, runs)                  # from the folders alone, finished or not
    print(study_text(results))

spec.py says what a study is, carry.py does its runs, collect.py reads what came out and comparable.py what must not be
compared; lines.py, dpostep.py, steps.py and speed.py count what a study shows beside its main table (parts.py).
evidence.py (above this package) has the statistics; tables.py, text.py and page.py write all of it down. plan.py says
what it will take.
"""

from __future__ import annotations
