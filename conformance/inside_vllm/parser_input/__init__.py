"""What is sent to a parser: Hypothesis strategies and listed cases, with what they mean."""
