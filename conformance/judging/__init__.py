"""From numbers to a verdict: declarations of checks, expectations, intervals, waivers, known failures. Pure."""
