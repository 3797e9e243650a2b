"""Encoder, augmentation with its inverse, losses, pose head and optimisers: what the trainers are
made of.
"""
