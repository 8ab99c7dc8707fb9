"""Tensors -> one number with its unit."""
