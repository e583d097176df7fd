"""The calculator: exact arithmetic, annotations in text, and the automaton that writes results while decoding.

    expression   evaluate and write numbers: exact, bounded, nothing executed
    annotation   `<<48/2=24>>` and `[ 48 / 2 = 24 ]`: find, rewrite, convert, split
    equations    plain equations of gold rationales get annotations
    forcing      per-row token automaton, the same for every decoding backend

Nothing is imported here, and none of it imports torch.
"""
