"""Rollouts: what a candidate is let do, what is learnt from it, and who is told to take it back.

``plan`` freezes what a rollout is to do, ``games`` is the arithmetic of evidence, ``guard`` folds tallies into evidence
and judges it, ``controller`` writes what follows. Servers and recorders are met through the registry's rows only.
"""
