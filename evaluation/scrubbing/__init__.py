"""Published causal scrubbing, done again on models that are trained here from their descriptions."""
