"""What an auditor brings: rows of one's own in the public formats, and what a model answers to them."""
