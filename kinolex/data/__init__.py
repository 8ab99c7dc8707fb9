"""Collections -> batches: index, packs, loader, check, and the procedural worlds."""
