"""Workers: who they are, whether they answer, how many builds each takes at once."""
