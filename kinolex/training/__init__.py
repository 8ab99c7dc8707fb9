"""Packs -> weights. Nothing imports this package but the command line."""
