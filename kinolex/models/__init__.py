"""Ids in, logits out, nothing else: networks that predict tokens."""
