"""The concrete parts of a daemon, by what they are for."""
