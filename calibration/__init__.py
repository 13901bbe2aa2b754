"""The error rates of `verify.direction`, measured on models whose computation is known."""
