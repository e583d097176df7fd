"""The stages of a run: each reads records, calls one engine, writes records. A stage never imports a stage."""
