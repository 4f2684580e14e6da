"""Files that strangers made: what they may reach, how large they may be, and how their damage is
reported."""
