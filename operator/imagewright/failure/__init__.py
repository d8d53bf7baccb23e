"""What the errors of each client mean for the user: a reason, a sentence, whether to retry."""
