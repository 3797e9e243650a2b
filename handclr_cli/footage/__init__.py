"""Footage: video decoding, hand landmarks, crops."""
