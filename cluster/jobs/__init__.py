"""Ray's job server: submitting runs, following their logs, tokens."""
