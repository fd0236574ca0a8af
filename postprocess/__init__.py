"""From a stream of forecast steps to published products."""
