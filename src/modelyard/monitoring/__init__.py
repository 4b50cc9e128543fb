"""Watching models: windows become findings, findings become alerts.

``rules``       what counts as worth telling, and to whom: settings with defaults
``looks``       closed windows, pooled until they are large enough to claim anything
``compare``     a look beside its reference: which differences are real and matter
``integrity``   differences that have a name: stuck, come alive, another unit, new categories
``drift``       from looks to episodes: false-discovery control over time, hysteresis
``latency``     quantiles of each stage, and when they changed
``budget``      errors and slow answers beside what is allowed
``alerting``    which findings make which alerts
``sinks``       how an alert looks to a receiver; ``postman`` sends it
``watch``       one turn of the loop over all of these
``features``    each input and output beside its reference
``report``      everything about one model, computed from rows
``selftest``    how long known drifts take, and how often nothing is taken for something

``sending``      labels from files, into the registry or to a server
``labelling``    labels of all models joined with what this machine recorded, now and then
``joining``      of one model: which labels meet which predictions, each once
``recorded``     recorded predictions, found by their ids
``bookkeeping``  which cohorts a row is of; ``grading`` what it adds to them
``maturity``     how late labels come, and which cohorts have theirs
``scorecard``    metrics from cohorts, with intervals; ``expectation`` what scores promise before labels come
``accuracy``     everything that labels say of a model
``verdicts``     whether a version is worse than at its training; ``judging`` makes findings of it
"""
