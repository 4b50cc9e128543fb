"""Tests, effects, sequential evidence and metrics: pure functions on integer counts, numpy and nothing else.

A live window and a reference are counts on the same bins, so everything here takes counts and none of it sees a row.
What has to be kept between calls is a ``msgspec.Struct`` that a registry row can hold. Logarithms are natural; an
evidence ``e`` travels as its logarithm. A function that computes a quantity has that quantity's name.

``special``     tails of the beta, gamma, normal and Kolmogorov distributions
``counts``      what every function asks of the counts it is given
``distances``   PSI, Jensen-Shannon, KL, Hellinger, KS, Wasserstein, and what PSI is when nothing drifted
``twosample``   is it real: tests that carry the reference's own size
``effects``     does it matter: bounds on how large a difference is
``discovery``   many tests: false-discovery control over features and over time
``sequential``  evidence that may be looked at at any time: the canary guard's games
``confidence``  intervals that hold at all times at once
``streaming``   drift within a window: conformal martingale, change detectors
``quality``     accuracy, AUC, calibration and the rest from counts
``expected``    what those would be if scores were calibrated and nothing else changed
``limits``      how much traffic an answer must cost
"""
