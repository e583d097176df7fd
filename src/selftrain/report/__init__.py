"""The report of a run, made from the files of its folder alone: results.json, report.html, a table for the terminal.

    from selftrain.report.write import write_report
    results = write_report(Path("runs/quickstart"))

`files` reads the folder; `accuracy`, `learning` and `account` compute, and `collect` puts their parts together as one
JSON-ready dict, which `text`, `figures` and `html` show. Whatever the stored completions say is counted from them
again; figures that a stage noted are used only for what its files no longer hold (seconds, tokens of prompts).
Everything works on an unfinished run. Importing this package loads no torch, matplotlib or jinja2.
"""
