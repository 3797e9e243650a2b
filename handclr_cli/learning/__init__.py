"""Training: encoder, augmentation with its inverse, losses, pose head, optimisers."""
