"""An analogue of the two-layer attention-only model whose induction was scrubbed: its text, its training, its heads."""
