"""Which relation a network's answers follow out of distribution, in its outputs and in its representations."""
