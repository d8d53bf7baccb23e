"""The kinds as users write and read them; the CRDs are generated from here."""
