"""Whether messages help: campaigns, arms drawn by lot, and their effects."""
