"""The sampling error of a measure: what the measure would be on other samples from the same source."""
