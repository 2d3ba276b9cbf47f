"""Getting approved messages out, each exactly once, and hearing what came back."""
