"""The checker of balanced brackets that causal scrubbing was published on, trained from its description."""
