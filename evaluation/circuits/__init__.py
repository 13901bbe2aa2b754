"""Circuit search on programs whose circuit is written down."""
