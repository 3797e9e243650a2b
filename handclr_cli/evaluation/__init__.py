"""Evaluation: metrics, intervals, predictions, the protocols of data sets."""
