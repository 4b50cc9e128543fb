"""What was predicted, kept: a ring that servers write to, and a recorder that counts and stores what it finds there."""
