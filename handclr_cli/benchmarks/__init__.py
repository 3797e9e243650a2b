"""Labelled data sets and metrics: readers, labelled crops, 3D pose errors."""
