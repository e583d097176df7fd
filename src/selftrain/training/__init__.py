"""Training: one `fit`, two objectives (`sft`, `dpo`), losses as pure functions, checkpoints without pickle.

Import from the modules; this package imports nothing, so that it costs nothing.
"""
