"""What is done with a model: run, score, capture, generate, sweep. `Model` is the front door."""
