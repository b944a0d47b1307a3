"""HTTP: the BFL protocol and native routes over the same jobs. Never imports torch."""
