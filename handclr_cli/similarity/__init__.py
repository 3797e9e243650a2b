"""Similarity of poses: the embedding and the search for positives."""
