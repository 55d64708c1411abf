"""What a broker says, in one form, and what its securities may be."""
