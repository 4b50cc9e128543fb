"""Watching models.

``labelling``    labels of all models joined with what this machine recorded, now and then
``joining``      of one model: which labels meet which predictions, each once
``recorded``     recorded predictions, found by their ids
``bookkeeping``  which cohorts a row is of; ``grading`` what it adds to them
"""
