"""From numbers to a verdict: declarations of checks, expectations, intervals, waivers and known failures."""
