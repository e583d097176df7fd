"""Arms x seeds x test sets, from one YAML file: `selftrain study NAME`.

    study = load_study("main")
    runs = runs_of(study, Path("runs/study-main"))        # one run folder an arm and seed: STUDY/ARM/seed-N
    carry_out(runs, progress)                             # one after the other; finished stages are shared
    results = study_results(study, runs)                  # from the folders alone, finished or not
    print(study_text(results))

spec.py says what a study is, carry.py does its runs, collect.py reads what came out and comparable.py what must not be
compared; evidence.py (above this package) has the statistics, tables.py and text.py write them down.
"""

from __future__ import annotations
