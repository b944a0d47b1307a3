"""From a request to pixels: stages, resident weights, progress. Knows neither HTTP nor a terminal."""
