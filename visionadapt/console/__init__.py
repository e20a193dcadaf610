"""What a person sees while a command works: a live view in a terminal, plain lines elsewhere, JSON for programs."""
