"""Shared network blocks without policy: convolutions with explicit streaming state, and norms."""
