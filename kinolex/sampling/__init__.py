"""From logits to ids: orders, temperatures and choices, over functions and never over models."""
