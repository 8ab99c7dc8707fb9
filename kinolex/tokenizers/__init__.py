"""Clip <-> Tokens."""
