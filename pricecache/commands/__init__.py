"""Commands that talk to a daemon, by what they are about."""
