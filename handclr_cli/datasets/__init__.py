"""Labelled data sets: readers, importing, checks."""
