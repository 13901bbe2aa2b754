"""What the deception audit is made of: statements in, replies and read-outs out, one file for each threat model."""
