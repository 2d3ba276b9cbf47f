"""Writing messages: what to say, who writes it, and what must not be said."""
