"""What the instruments do on a real model: tables of whole experiments, each with the command that prints it."""
