"""What the backdoor audit measures: words put into sentences, answers that turn, and what carries them."""
