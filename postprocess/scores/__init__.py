"""Published forecasts against the analyses that came after them: sums kept, scores made of them."""
