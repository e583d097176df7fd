"""Verifiers: is the answer in a text right? Each is total: any text gets a `Verdict`, none raises.

    numeric   numbers, by two extractors: strict (after `####`) and flexible (any model's free text)

Nothing is imported here, and none of it imports torch.
"""
